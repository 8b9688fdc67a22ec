import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from helpers import files_up_to

from wpl_d2.data import check_training_data, load_description
from wpl_d2.data.dataset_report import report_dataset
from wpl_d2.data.image_io import read_record_mask
from wpl_d2.data.labels import Masks
from wpl_d2.data.loader import unlabeled_records
from wpl_d2.utils.errors import InputError

LABELS = {"format": "masks", "values": {0: "ground", 1: "box", 2: "ball"}}
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def other(tree):
    """The tree, whose masks are read by way of the cache."""
    tree.describe(labels=LABELS)
    return tree


def records(tree, name="labeled"):
    return load_description(tree.yaml).records(name)


def converted(tree):
    return {path: path.stat().st_mtime_ns for path in (tree.root.parent / "cache/labels").glob("*/*.png")}


@pytest.fixture
def reads(monkeypatch, tmp_path):
    """The file into which each process writes a line for each mask that it reads."""
    log, read = tmp_path / "reads", Masks.read

    def noted(self, image):
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.1)
        return read(self, image)

    monkeypatch.setattr(Masks, "read", noted)
    return log


def test_what_changed_is_converted_anew_and_nothing_else(other):
    records(other)
    before = converted(other)
    assert len(before) == 3
    other.write_mask("labeled1", np.full((50, 60), 2, dtype=np.uint8))
    mask = read_record_mask(records(other)[1])
    after = converted(other)
    assert (mask == 2).all() and after.items() > before.items() and len(after) == 4

    other.describe(labels={**LABELS, "values": {0: "ground", 1: "ball", 2: "box"}})
    assert (read_record_mask(records(other)[1]) == 1).all() and len(converted(other)) == 7


def test_messages_name_the_users_file(other):
    other.write_mask("labeled1", np.zeros((50, 61), dtype=np.uint8))
    (found,) = [problem for problem in report_dataset(load_description(other.yaml), 90).problems if "61x50" in problem]
    assert found.startswith(f"{other.mask('labeled1')}: is 61x50 but its image")
    other.write_mask("labeled1", np.full((50, 60), 255, dtype=np.uint8))
    assert any(
        problem.startswith(f"{other.mask('labeled1')}: labels no pixel")
        for problem in report_dataset(load_description(other.yaml), 90).problems
    )


def test_labels_that_cannot_be_read_are_a_problem_each_and_no_others(other):
    other.write_mask("labeled0", np.full((50, 60), 9, dtype=np.uint8))
    other.mask("labeled2").write_bytes(b"no image")
    other.mask("val1").unlink()
    problems = report_dataset(load_description(other.yaml), 90).problems
    first, second, third = (other.mask(name) for name in ("labeled0", "labeled2", "val1"))
    assert any(problem.startswith(f"{first}: holds the values 9 (100 % of the pixels)") for problem in problems)
    assert any(problem.startswith(f"{second}: cannot be read") for problem in problems)
    assert any(f"but has no {third}; add it" in problem for problem in problems)
    with pytest.raises(InputError, match="holds the values 9"):
        check_training_data(other.cfg())


def test_masks_of_unlabeled_images_are_not_converted(other):
    cfg = other.cfg("TEST.EVAL_PERIOD", 1)
    check_training_data(cfg)
    assert len(unlabeled_records(cfg)) == 5 and len(converted(other)) == 3 + 2


def test_a_mask_that_is_gone_from_the_cache_is_named_by_the_users_file(other):
    record = records(other)[0]
    os.unlink(record["sem_seg_file_name"])
    with pytest.raises(InputError, match=rf"^{other.mask('labeled0')}: .* no longer in the cache .*; start again"):
        read_record_mask(record)


def test_a_full_disk_is_an_error_that_names_the_cache_and_leaves_it_usable(other):
    with files_up_to(100), pytest.raises(InputError, match=r"cache/labels/.*; or set WPL_D2_CACHE to a folder"):
        records(other)
    assert not list((other.root.parent / "cache").rglob("*.partial"))
    assert all("sem_seg_error" not in record for record in records(other)) and len(converted(other)) == 3


def test_one_process_converts_while_others_wait(other, reads):
    processes = [FORK.Process(target=records, args=(other, "unlabeled")) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    readers = reads.read_text().split()
    assert len(readers) == 5 and len(set(readers)) == 1


def test_what_a_killed_process_leaves_is_used(other, reads, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    process = FORK.Process(target=records, args=(other, "unlabeled"))
    process.start()
    while not converted(other):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    before = converted(other)
    next(iter(before)).with_name(".x.png.1.a.partial").touch()
    assert len(records(other, "unlabeled")) == 5
    after = converted(other)
    assert 0 < len(before) < 5 == len(after) and before.items() <= after.items()
    assert not list((other.root.parent / "cache").rglob("*.partial"))
