"""Every labeled and evaluation file is read to its end before the first step, once."""

import _thread
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from wpl_d2.data import check_training_data, verified_files
from wpl_d2.utils import threads

EVALUATED = ("TEST.EVAL_PERIOD", 1)


def cut(file, share=0.9):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])


@pytest.fixture
def long(tree):
    """The tree with lists of 40 images, more than a sample, of which only one is broken in each test."""
    for stem in ("labeled", "val"):
        for i in range(40):
            name = f"{stem}{i}"
            if not tree.image(name).exists():
                Image.open(tree.image(f"{stem}0")).save(tree.image(name))
                Image.open(tree.mask(f"{stem}0")).save(tree.mask(name))
        (tree.root / f"{stem}.txt").write_text("\n".join(f"{stem}{i}" for i in range(40)))
    return tree


@pytest.fixture
def reads(monkeypatch):
    """The images that were read, by name."""
    seen = []
    examine = verified_files._examine

    def noted(record, num_classes):
        seen.append(os.path.basename(record["file_name"]).removesuffix(".png"))
        return examine(record, num_classes)

    monkeypatch.setattr(verified_files, "_examine", noted)
    return seen


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["image", "mask"])
@pytest.mark.parametrize("name", ["labeled1", "labeled38", "val38"])
def test_a_cut_file_of_any_place_is_found_before_the_first_step(long, kind, name, workers):
    file = getattr(long, kind)(name)
    if kind == "mask":  # noise, so that the file is cut in its pixels
        rng = np.random.default_rng(0)
        long.write_mask(name, rng.integers(0, 3, (50, 60), dtype=np.uint8))
    check_training_data(long.cfg(*EVALUATED, "DATALOADER.NUM_WORKERS", workers))
    cut(file)
    with pytest.raises(ValueError, match=rf"{kind}s/{name}\.png: cannot be read") as error:
        check_training_data(long.cfg(*EVALUATED, "DATALOADER.NUM_WORKERS", workers))
    assert len(str(error.value).splitlines()) == 1


def test_a_cut_jpeg_is_found_though_its_header_is_whole(long):
    for name in ("val20", "val38"):
        Image.open(long.image(name)).save(long.image(name), format="JPEG")
    check_training_data(long.cfg(*EVALUATED))
    cut(long.image("val38"))
    with Image.open(long.image("val38")) as header:
        assert header.size == (60, 50)
    with pytest.raises(ValueError, match=r"val38\.png: cannot be read \(image file is truncated"):
        check_training_data(long.cfg(*EVALUATED))


def test_what_only_the_whole_list_shows_is_found(long):
    long.write_mask("val38", np.full((50, 60), 9, np.uint8))
    long.write_mask("labeled38", np.zeros((50, 61), np.uint8))
    with pytest.raises(ValueError, match=r"labeled38\.png: is 61x50 but .*\n.*val38\.png: holds the ids \[9\]"):
        check_training_data(long.cfg(*EVALUATED))


def test_it_can_be_left_out(long, reads):
    cut(long.image("val38"))
    check_training_data(long.cfg(*EVALUATED, "DATASETS.VERIFY_FILES", False))
    assert len(reads) == 2 * 32 and "val38" not in reads and "val39" in reads
    cut(long.image("val39"))
    with pytest.raises(ValueError, match=r"val39\.png: cannot be read"):
        check_training_data(long.cfg(*EVALUATED, "DATASETS.VERIFY_FILES", False))


def test_unlabeled_images_and_those_without_a_use_are_not_read(tree, reads):
    check_training_data(tree.cfg())
    assert sorted(reads) == ["labeled0", "labeled1", "labeled2"]
    reads.clear()
    check_training_data(tree.cfg(*EVALUATED, "TEST.PSEUDO_LABELS", (f"{tree.name}_unlabeled",)))
    assert sorted(reads) == [*(f"unlabeled{i}" for i in range(5)), "val0", "val1"]


def test_images_that_are_only_predicted_are_read_without_their_masks(tree, reads):
    tree.mask("val0").write_bytes(b"broken")
    tree.mask("val1").unlink()
    cfg = tree.cfg(*EVALUATED, "TEST.EVALUATOR", "submission")
    check_training_data(cfg)
    assert {"val0", "val1"} <= set(reads)
    cut(tree.image("val1"))
    with pytest.raises(ValueError, match=r"val1\.png: cannot be read"):
        check_training_data(cfg)


def test_what_passed_is_read_again_only_when_it_changed(tree, reads):
    check_training_data(tree.cfg(*EVALUATED))
    (kept,) = (tree.root.parent / "cache").glob("verified_*.npz")
    assert len(reads) == 5 and kept.stat().st_size < 5000
    for change in ((tree.image, "val1"), (tree.mask, "labeled2")):
        reads.clear()
        check_training_data(tree.cfg(*EVALUATED))
        assert reads == []
        file = change[0](change[1])
        os.utime(file, (1, 1))  # an earlier time than before
        check_training_data(tree.cfg(*EVALUATED))
        assert reads == [change[1]]
    reads.clear()
    with tree.image("val0").open("ab") as file:
        file.write(b"more")
    os.utime(tree.image("val0"), (1, 1))
    check_training_data(tree.cfg(*EVALUATED))
    assert reads == ["val0"]


def test_what_failed_is_read_again_and_the_rest_is_not(tree, reads):
    whole = tree.image("val1").read_bytes()
    cut(tree.image("val1"))
    for _ in range(2):
        reads.clear()
        with pytest.raises(ValueError, match="val1"):
            check_training_data(tree.cfg(*EVALUATED))
        assert "val1" in reads
    assert reads == ["val1"]
    tree.image("val1").write_bytes(whole)
    check_training_data(tree.cfg(*EVALUATED))


def test_what_passes_depends_on_the_description(tree, reads):
    for i in range(3):
        tree.write_mask(f"labeled{i}", np.arange(50 * 60, dtype=np.int64).reshape(50, 60).astype(np.uint8) % 3)
    for changes in ({}, {"classes": ["ground", "box", "ball", "cone"]}, {"ignore": 7}, {"exif": "ignore"}):
        reads.clear()
        tree.name += "_x"
        tree.describe(**changes)
        check_training_data(tree.cfg())
        assert len(reads) == 3


def test_the_counts_of_what_passed_are_remembered_with_it(tree, caplog):
    for i in range(3):
        tree.write_mask(f"labeled{i}", np.full((50, 60), i % 2, np.uint8))
    for _ in range(2):
        caplog.clear()
        check_training_data(tree.cfg())
        assert "no pixel is labeled 'ball'" in caplog.text


@pytest.mark.parametrize("content", [b"", b"half a file", None])
def test_a_damaged_or_unwritable_memory_is_no_obstacle(tree, monkeypatch, caplog, reads, content):
    check_training_data(tree.cfg())
    (kept,) = (tree.root.parent / "cache").glob("verified_*.npz")
    if content is None:
        monkeypatch.setenv("WPL_D2_CACHE", str(tree.yaml))  # a file is not a folder
    else:
        kept.write_bytes(content)
    reads.clear()
    check_training_data(tree.cfg())
    assert len(reads) == 3
    assert ("set WPL_D2_CACHE" in caplog.text) == (content is None)
    assert not list(kept.parent.glob(".*"))  # nothing unfinished


def test_ctrl_c_ends_it_soon_and_what_passed_stays(long, monkeypatch, reads, ordinary_signals):
    examine = verified_files._examine
    monkeypatch.setattr(verified_files, "_examine", lambda *args: time.sleep(0.1) or examine(*args))
    monkeypatch.setattr(threads, "_MAX_THREADS", 2)
    threading.Timer(0.5, _thread.interrupt_main).start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        check_training_data(long.cfg(*EVALUATED))
    assert time.monotonic() - begin < 3  # all of them take 4
    interrupted = len(reads)
    assert 0 < interrupted < 60
    reads.clear()
    monkeypatch.setattr(verified_files, "_examine", examine)
    check_training_data(long.cfg(*EVALUATED))
    assert 80 - interrupted <= len(reads) < 80


def test_files_are_read_in_several_threads(long, monkeypatch):
    names = set()
    examine = verified_files._examine
    barrier = threading.Barrier(2, timeout=20)  # two must be at it at a time

    def noted(*args):
        if len(names) < 2:
            names.add(threading.current_thread().name)
            barrier.wait()
        return examine(*args)

    monkeypatch.setattr(verified_files, "_examine", noted)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    check_training_data(long.cfg())
    assert len(names) == 2
