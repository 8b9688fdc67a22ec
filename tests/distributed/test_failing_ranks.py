"""What a launcher says and does when its ranks fail, each in its way."""

import multiprocessing
import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest
from detectron2.utils import comm

from wpl_d2.engine import launch
from wpl_d2.utils.errors import InputError

pytestmark = pytest.mark.slow
ARGS = {"num_gpus": 2, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}


def refuse_all(args):
    raise InputError("data: wrong; mend it")


def fail_one(args):
    """Rank 1 fails, and rank 0 then, because it has lost it."""
    if not comm.is_main_process():
        raise ZeroDivisionError("the cause")
    comm.synchronize()


def leave_one(args):
    if not comm.is_main_process():
        sys.exit(5)
    comm.synchronize()


def kill_one(args):
    """As a machine without memory left does; the other one hears nothing of it."""
    if not comm.is_main_process():
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


@pytest.mark.parametrize(
    ("main", "status", "said"),
    [
        (refuse_all, 2, "error: data: wrong; mend it\n"),
        (fail_one, 1, "ZeroDivisionError: the cause\n"),
        (leave_one, 5, ""),
        (kill_one, 128 + signal.SIGKILL, "error: a process was ended by SIGKILL"),
    ],
)
def test_what_ends_ranks_is_said_once_and_ends_all(capfd, monkeypatch, main, status, said):
    monkeypatch.setattr(sys.modules["wpl_d2.engine.launch"], "_GRACE", 1.0)
    with pytest.raises(SystemExit) as end:
        launch(main, SimpleNamespace(**ARGS))
    assert end.value.code == status
    errors = capfd.readouterr().err
    assert errors.count("error: ") == said.count("error: ")
    assert errors.count("Traceback") == (main is fail_one)
    assert said in errors
    assert multiprocessing.active_children() == []


def report_start_method(args):
    path = f"{args.folder}/{comm.get_rank()}"
    with open(path, "w") as file:
        file.write(multiprocessing.get_start_method())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_ranks_start_the_workers_of_loaders_as_a_run_of_one_process_does(tmp_path, monkeypatch, method):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: method)
    launch(report_start_method, SimpleNamespace(**ARGS, folder=tmp_path))
    assert [(tmp_path / rank).read_text() for rank in "01"] == [method, method]
