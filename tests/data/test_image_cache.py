"""Decoded images that all processes of a machine share: what is found, what is added, and what is left."""

import fcntl
import logging
import multiprocessing
import os
import shutil
import subprocess
import threading
import time
from itertools import islice

import numpy as np
import pytest
from helpers import files_up_to
from PIL import Image
from test_streams import same

from wpl_d2.data import UnreadableImageError, build_train_loader, file_cache, image_io
from wpl_d2.data.file_cache import ArrayCache
from wpl_d2.data.image_io import ImageReader, read_record, read_record_mask
from wpl_d2.data.loader import image_cache_in_use
from wpl_d2.utils.errors import InputError

MIB = 2**20


@pytest.fixture(autouse=True)
def shared_memory(tmp_path, monkeypatch):
    """A folder in the place of /dev/shm."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(file_cache, "_SHARED_MEMORY", folder)
    return folder


@pytest.fixture
def cache(tmp_path):
    return ArrayCache(tmp_path / "arrays", MIB, keep=True)


def files(folder):
    return sorted(path.name for path in folder.glob("*.npy"))


def array(value, size=1000):
    return np.full(size, value, dtype=np.uint8)


def refuse(*args):
    raise AssertionError("is not in the cache")


def fill(cache, *values, size=1000):
    for value in values:
        assert (cache.get(str(value), lambda value=value: array(value, size)) == value).all()


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_samples_are_the_same_and_nothing_is_decoded_twice(tree, monkeypatch, shared_memory, kind, workers):
    opts = ["INPUT.PASTE.PROB", 0.5, "MODEL.DETECTOR.MODE", "shared"]
    expected = list(islice(build_train_loader(tree.cfg(*opts)), 12))
    cfg = tree.cfg(*opts, "DATALOADER.CACHE", kind, "DATALOADER.NUM_WORKERS", workers)
    with image_cache_in_use(cfg):
        assert same(expected, list(islice(build_train_loader(cfg), 12)))
        folder = shared_memory / f"wpl_d2_{os.getuid()}" if kind == "ram" else tree.root.parent / "cache/images"
        assert len(files(folder)) == 3 + 3 + 5
        monkeypatch.setattr(image_io, "load_pixels", refuse)
        assert same(expected, list(islice(build_train_loader(cfg), 12)))
    assert folder.is_dir() == (kind == "disk")


@pytest.mark.parametrize("change", ["content", "time", "exif", "ignore", "version"])
def test_what_a_changed_file_gave_is_never_used(tree, cache, monkeypatch, change):
    record = {"file_name": str(tree.image("val0")), "sem_seg_file_name": str(tree.mask("val0"))}
    reader = ImageReader(cache)
    with cache.in_use():
        reader.image(record), reader.mask(record)
        for _ in range(2):
            assert len(files(cache.folder)) == 2
            np.testing.assert_array_equal(reader.image(record), read_record(record))
            np.testing.assert_array_equal(reader.mask(record), read_record_mask(record))
        if change == "content":
            Image.fromarray(np.zeros((7, 9, 3), np.uint8)).save(tree.image("val0"))
        elif change == "time":
            os.utime(tree.image("val0"), (1, 1))
        elif change == "exif":
            record["exif"] = "ignore"
        elif change == "ignore":
            record["sem_seg_ignore"] = 2
            tree.write_mask("val0", np.full((50, 60), 2, np.uint8))
        else:
            monkeypatch.setattr(image_io.PIL, "__version__", "0")
        np.testing.assert_array_equal(reader.image(record), read_record(record))
        np.testing.assert_array_equal(reader.mask(record), read_record_mask(record))
        both = change in ("exif", "version")
        assert len(files(cache.folder)) == (4 if both else 3)


def test_a_broken_or_missing_image_is_named_though_it_was_whole(tree, cache):
    reader, record = ImageReader(cache), {"file_name": str(tree.image("val0"))}
    with cache.in_use():
        reader.image(record)
        content = tree.image("val0").read_bytes()
        tree.image("val0").write_bytes(content[:-100])
        for _ in range(2):
            with pytest.raises(UnreadableImageError, match=r"val0\.png: cannot be read"):
                reader.image(record)
        tree.image("val0").unlink()
        with pytest.raises(UnreadableImageError, match=r"val0\.png: cannot be read"):
            reader.image(record)
        assert len(files(cache.folder)) == 1


def test_nothing_is_added_outside(cache):
    fill(cache, 1)
    assert not cache.folder.exists()
    with cache.in_use():
        fill(cache, 1)
    fill(cache, 2)
    assert files(cache.folder) == ["1.npy"]


def test_a_damaged_file_is_no_obstacle(cache):
    with cache.in_use():
        fill(cache, 1, 2)
        (cache.folder / "1.npy").write_bytes(b"")
        (cache.folder / "2.npy").write_bytes((cache.folder / "2.npy").read_bytes()[:-1])
        fill(cache, 1, 2)
        assert cache.get("1", refuse).shape == cache.get("2", refuse).shape == (1000,)


def test_over_budget_nothing_is_added_that_this_run_would_lose_again(tmp_path, caplog):
    cache = ArrayCache(tmp_path / "arrays", 10 * 1128, keep=True)
    with cache.in_use():
        fill(cache, *range(20))
        assert len(files(cache.folder)) == 10
        fill(cache, *range(10))
        assert len(files(cache.folder)) == 10
    assert [record.message for record in caplog.records] == [
        f"DATALOADER.CACHE_GB: 11.0 KiB are used up in {cache.folder}; raise it; until then what is not in this cache "
        "is computed each time"
    ]


def test_what_a_later_run_does_not_use_makes_room(tmp_path, caplog):
    first = ArrayCache(tmp_path / "arrays", 10 * 1128, keep=True)
    with first.in_use():
        fill(first, *range(10))
    for age, file in enumerate(first.folder.glob("*.npy")):
        os.utime(file, (time.time() - 1000 + age,) * 2)
    later = ArrayCache(first.folder, first.budget, keep=True)
    with later.in_use():
        fill(later, 3, 4, *range(100, 105))
        kept = {int(file.removesuffix(".npy")) for file in files(later.folder)}
        assert {3, 4, *range(100, 105)} <= kept and len(kept) >= 9
        fill(later, *range(105, 120))
        assert {3, 4, *range(100, 108)} == {int(file.removesuffix(".npy")) for file in files(later.folder)}
    assert len(caplog.records) == 1
    small = ArrayCache(first.folder, 4 * 1128, keep=True)
    with small.in_use():
        assert len(files(small.folder)) == 4


def fill_in_turn(cache, seed):
    for value in np.random.default_rng(seed).permutation(60):
        found = cache.get(str(value), lambda value=value: array(value, 10_000))
        assert found.shape == (10_000,) and (found == value).all()


def test_many_processes_fill_one_cache(tmp_path, monkeypatch):
    used = file_cache._get
    # Time for another process to count between what this one reads and what it writes, if it could.
    monkeypatch.setattr(file_cache, "_get", lambda counter: (used(counter), time.sleep(0.001))[0])
    budget = 40 * 10_128
    with ArrayCache(tmp_path / "arrays", budget, keep=True).in_use():
        context = multiprocessing.get_context("fork")
        caches = [ArrayCache(tmp_path / "arrays", budget, keep=True) for _ in range(4)]
        fillers = [context.Process(target=fill_in_turn, args=(cache, seed)) for seed, cache in enumerate(caches)]
        for filler in fillers:
            filler.start()
        for filler in fillers:
            filler.join()
        assert [filler.exitcode for filler in fillers] == [0] * 4
    kept = list((tmp_path / "arrays").glob("*.npy"))
    # Of what two add at the same time, the budget counts both until the next start.
    assert 20 < len(kept) <= 40 and sum(file.stat().st_size for file in kept) <= budget
    assert not list((tmp_path / "arrays").glob(".*"))


def fill_for_ever(cache, ready):
    with cache.in_use():
        for value in range(10**6):
            cache.get(f"value_{value}", lambda value=value: array(value % 256, 4 * MIB))
            ready.set()


def kill_filler(cache, seconds):
    """Kill a process that fills a cache, so many seconds after its first array."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    filler = context.Process(target=fill_for_ever, args=(cache, ready))
    filler.start()
    assert ready.wait(30)
    time.sleep(seconds)
    filler.kill()
    filler.join()


@pytest.mark.parametrize("removed", [False, True])
def test_whoever_enters_while_the_last_one_leaves_can_add(cache, removed):
    added, entered, alone = [], threading.Event(), threading.Event()

    def enter():
        with cache.in_use():
            entered.set()
            assert alone.wait(20)
            fill(cache, 1)
            added.extend(files(cache.folder))

    cache.folder.mkdir()
    with (cache.folder / "in_use").open("ab") as leaving:
        fcntl.flock(leaving, fcntl.LOCK_EX)
        entering = threading.Thread(target=enter, daemon=True)
        entering.start()
        assert not entered.wait(0.2)
        if removed:
            shutil.rmtree(cache.folder)
            other = cache.in_use()  # in the folder's new place
            other.__enter__()
    assert entered.wait(20)
    if removed:
        other.__exit__(None, None, None)
    alone.set()
    entering.join(timeout=20)
    assert added == ["1.npy"]


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_whole_files(tmp_path):
    folder = tmp_path / "arrays"
    cache = ArrayCache(folder, 2**30, keep=True)
    rng, unfinished = np.random.default_rng(0), 0
    for _ in range(20):
        kill_filler(cache, rng.uniform(0.01, 0.1))
        unfinished += len(list(folder.glob(".*")))
        for file in folder.glob("*.npy"):
            found = np.load(file)
            assert found.shape == (4 * MIB,) and (found == int(file.stem.partition("_")[2]) % 256).all()
            file.unlink()
        with cache.in_use():
            assert not list(folder.glob(".*"))
    assert unfinished


@pytest.mark.slow
def test_what_a_killed_run_left_in_memory_is_removed_by_the_next(tmp_path):
    cache = ArrayCache(tmp_path / "arrays", 2**30, keep=False)
    kill_filler(cache, 0.05)
    assert files(cache.folder)
    with cache.in_use():
        assert files(cache.folder) == [] and not list(cache.folder.glob(".*"))
        fill(cache, 1)
    assert not cache.folder.exists()


def test_memory_stays_until_the_last_run_ends(tmp_path):
    cache = ArrayCache(tmp_path / "arrays", MIB, keep=False)
    with cache.in_use():
        with cache.in_use():
            fill(cache, 1)
        assert (cache.get("1", refuse) == 1).all()
        with cache.in_use():
            assert files(cache.folder) == ["1.npy"]
    assert not cache.folder.exists()
    with pytest.raises(KeyError), cache.in_use():
        fill(cache, 1)
        raise KeyError
    assert not cache.folder.exists()


@pytest.mark.parametrize("kept_free", [None, 0])
def test_a_full_disk_is_told_once_and_nothing_is_unfinished(small_disk, monkeypatch, caplog, kept_free):
    if kept_free is not None:
        monkeypatch.setattr(ArrayCache, "_KEPT_FREE", kept_free)
    cache = ArrayCache(small_disk / "arrays", MIB, keep=True)
    with cache.in_use():
        (small_disk / "fill").write_bytes(bytes(24 * 1024))
        fill(cache, *range(30), size=4000 if kept_free is None else 5000)
        fill(ArrayCache(cache.folder, MIB, keep=True), *range(30), size=4000 if kept_free is None else 5000)
    assert 1 <= len(files(cache.folder)) < 10 and not list(cache.folder.glob(".*"))
    assert len(caplog.records) == 1 and "until then" in caplog.text
    (small_disk / "fill").unlink()
    with cache.in_use():
        fill(cache, 29)
        assert "29.npy" in files(cache.folder)


def test_a_write_that_fails_is_told_once(cache, caplog):
    with cache.in_use():
        fill(cache, 1)
        with files_up_to(5000):
            fill(cache, 2, 3, size=6000)
        fill(cache, 4)
    assert files(cache.folder) == ["1.npy"] and not list(cache.folder.glob(".*"))
    (told,) = caplog.records
    assert told.levelno == logging.WARNING and "arrays/2.npy: cannot be written" in told.message


def test_a_read_only_folder_is_told_once_and_still_read(small_disk, caplog):
    cache = ArrayCache(small_disk / "arrays", MIB, keep=True)
    with cache.in_use():
        fill(cache, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with ArrayCache(cache.folder, MIB, keep=True).in_use():
        assert (ArrayCache(cache.folder, MIB, keep=True).get("1", refuse) == 1).all()
        fill(cache, 2, 3)
    (told,) = caplog.records
    assert "make its disk writable" in told.message


def test_a_file_in_the_place_of_the_folder(tmp_path, caplog):
    (tmp_path / "arrays").write_text("")
    cache = ArrayCache(tmp_path / "arrays", MIB, keep=True)
    with cache.in_use():
        fill(cache, 1, 2)
    (told,) = caplog.records
    assert "a file is in the place of a folder" in told.message


def test_without_shared_memory(tree, shared_memory):
    shutil.rmtree(shared_memory)
    with pytest.raises(InputError, match=r"DATALOADER\.CACHE: ram needs .*; take disk"):
        build_train_loader(tree.cfg("DATALOADER.CACHE", "ram"))
