import argparse
import logging
import os
import signal
import time

import pytest
from detectron2.utils.logger import setup_logger
from helpers import SMALL

from wpl_d2.checkpoint import run_folder as output
from wpl_d2.checkpoint.run_folder import check_folder_free, has_previous_run, lock_folder, move_aside, unlock_folder
from wpl_d2.engine import save_run_info, setup
from wpl_d2.engine.setup import open_log, start_log
from wpl_d2.utils.errors import InputError


@pytest.fixture(autouse=True)
def let_go():
    """A folder is held to the end of a process: this one shall not hold those of other tests."""
    before = set(output._LOCKED)
    yield
    for folder in set(output._LOCKED) - before:
        unlock_folder(folder)


def holder(folder):
    """Another process that has claimed a folder."""
    ready, told = os.pipe()
    pid = os.fork()
    if not pid:
        lock_folder(folder)
        os.write(told, b"x")
        time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    return pid


def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def refused_elsewhere(folder):
    """Whether another process cannot claim a folder."""
    pid = os.fork()
    if not pid:
        try:
            lock_folder(folder)
        except InputError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_a_folder_is_one_trainings_until_its_process_is_gone(tmp_path):
    folder = tmp_path / "runs" / "out"
    pid = holder(folder)
    try:
        for claim in (check_folder_free, lock_folder):
            with pytest.raises(InputError, match=rf"OUTPUT_DIR: \S+ is in use by another training \(process {pid} on"):
                claim(folder)
        (tmp_path / "link").symlink_to(folder)
        with pytest.raises(InputError, match="in use by another training"):
            lock_folder(tmp_path / "link")
        lock_folder(tmp_path / "runs")  # another one
    finally:
        end(pid)
    check_folder_free(folder)
    assert not refused_elsewhere(folder)  # looking takes nothing
    lock_folder(folder)
    lock_folder(folder)  # by the same process: a second trainer of a script
    check_folder_free(folder)
    assert refused_elsewhere(folder)


def test_a_worker_that_outlives_its_training_does_not_keep_the_folder(tmp_path):
    lock_folder(tmp_path)
    worker = os.fork()
    if not worker:
        time.sleep(60)
        os._exit(0)
    try:
        assert refused_elsewhere(tmp_path)
        unlock_folder(tmp_path)
        assert not refused_elsewhere(tmp_path)
    finally:
        end(worker)


def test_a_look_at_the_folder_at_the_same_time_does_not_refuse_a_training(tmp_path, monkeypatch):
    waits = []
    real = output.fcntl.flock

    def busy(file, how):
        if len(waits) < 2:
            raise BlockingIOError
        real(file, how)

    monkeypatch.setattr(output.fcntl, "flock", busy)
    monkeypatch.setattr(output.time, "sleep", waits.append)
    lock_folder(tmp_path)
    assert len(waits) == 2


def test_a_disk_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def flock(file, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(output.fcntl, "flock", flock)
    lock_folder(tmp_path)
    assert "has no locks (No locks available); do not train twice at once in it" in caplog.text


@pytest.mark.parametrize("place", ["file", "file/out"])
def test_a_file_in_the_place_of_the_folder(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=rf"{place}: cannot be written .*a file is in the place of a folder"):
        check_folder_free(tmp_path / place)


OF_A_RUN = (
    *("model_0000001.pth", "model_best.pth", "last_checkpoint", "metrics.json", "events.out.tfevents.1.host.1.0"),
    *("log.txt", "log.txt.rank1", "config.yaml", "environment.txt", "preview.png", "inference/val/boxes.json"),
)
NOT_OF_A_RUN = ("boxes.npz", ".lock", "model.onnx", "notes/model_1.pth")


def write(folder, names, text):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_earlier_runs_are_put_aside_one_by_one(tmp_path):
    write(tmp_path, NOT_OF_A_RUN, "mine")
    assert not has_previous_run(tmp_path) and move_aside(tmp_path) is None
    for number, name in enumerate(("earlier", "earlier_2", "earlier_3")):
        write(tmp_path, OF_A_RUN, f"run {number}")
        assert has_previous_run(tmp_path)
        assert move_aside(tmp_path) == tmp_path / name
    for number, name in enumerate(("earlier", "earlier_2", "earlier_3")):
        assert {(tmp_path / name / file).read_text() for file in OF_A_RUN} == {f"run {number}"}
    assert not any((tmp_path / name).exists() for name in (*OF_A_RUN, "inference"))
    assert {(tmp_path / name).read_text() for name in NOT_OF_A_RUN} == {"mine"}


@pytest.mark.parametrize("left", [["model_final.pth"], ["last_checkpoint"], ["metrics.json", "log.txt"]])
def test_whatever_can_be_resumed_or_mixed_up_is_a_run(tmp_path, left):
    write(tmp_path, left, "x")
    move_aside(tmp_path)
    assert sorted(path.name for path in (tmp_path / "earlier").iterdir()) == sorted(left)


def test_a_start_that_failed_is_no_run(tmp_path):
    write(tmp_path, ["log.txt", "config.yaml", "metrics.json"], "")
    assert move_aside(tmp_path) is None
    assert (tmp_path / "log.txt").exists()


@pytest.fixture
def logger():
    """This project's; all that are changed are afterwards as they were before."""
    loggers = [logging.getLogger(name) for name in ("fvcore", "detectron2", "wpl_d2")]
    before = [(own.handlers[:], own.propagate, own.level) for own in loggers]
    setup_logger.cache_clear()  # it would do nothing a second time
    yield loggers[-1]
    for own, state in zip(loggers, before, strict=True):
        own.handlers[:], own.propagate, own.level = state
    setup_logger.cache_clear()


def test_a_log_file_has_all_from_the_beginning_and_a_later_one_the_rest(tmp_path, logger):
    start_log()
    logger.info("first")
    open_log(tmp_path / "one")
    logger.info("second")
    open_log(tmp_path / "two")
    logger.warning("third")
    one, two = ((tmp_path / name / "log.txt").read_text() for name in ("one", "two"))
    assert [line.rpartition("] ")[2] for line in one.splitlines()] == ["wpl_d2 INFO: first", "wpl_d2 INFO: second"]
    assert two.endswith("wpl_d2 WARNING: third\n") and "second" not in two


def test_a_log_on_a_full_disk_says_so_once_and_ends_nothing(tmp_path, logger, capsys):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    start_log()
    open_log(tmp_path)
    for number in range(3):
        logger.info("line %d", number)
    said = capsys.readouterr()
    assert said.err.count("lacks what follows (No space left on device)") == 1
    assert "Traceback" not in said.err


def test_what_an_earlier_run_left_stays_until_the_next_one_begins(tree, tmp_path, logger):
    config, out = tmp_path / "run.yaml", tmp_path / "out"
    config.write_text(tree.cfg(*SMALL, "OUTPUT_DIR", str(out)).dump())
    args = argparse.Namespace(config_file=str(config), opts=["SOLVER.MAX_ITER", "7"], eval_only=False)
    setup(args)
    assert "MAX_ITER: 7" in (out / "config.yaml").read_text() and (out / "environment.txt").is_file()
    assert "device: cpu" in (out / "log.txt").read_text()

    write(out, ["model_final.pth", "config.yaml", "log.txt"], "of an earlier run")
    cfg = setup(args)
    assert (out / "config.yaml").read_text() == (out / "log.txt").read_text() == "of an earlier run"
    move_aside(out)
    save_run_info(cfg)
    assert "MAX_ITER: 7" in (out / "config.yaml").read_text()
    assert "device: cpu" in (out / "log.txt").read_text()
    assert "of an earlier run" not in (out / "log.txt").read_text()
    assert (out / "earlier" / "log.txt").read_text() == "of an earlier run"


def test_an_evaluation_beside_a_training_is_not_refused_and_replaces_nothing(tree, tmp_path, logger):
    config, out = tmp_path / "run.yaml", tmp_path / "out"
    write(out, ["model_final.pth", "config.yaml"], "of the training")
    config.write_text(tree.cfg(*SMALL, "OUTPUT_DIR", str(out)).dump())
    pid = holder(out)
    try:
        args = argparse.Namespace(config_file=str(config), opts=[], eval_only=True)
        setup(args)
        args.eval_only = False
        with pytest.raises(InputError, match="in use by another training"):
            setup(args)
    finally:
        end(pid)
    assert (out / "config.yaml").read_text() == "of the training"
