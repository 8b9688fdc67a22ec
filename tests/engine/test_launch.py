"""What a launcher refuses, and the order in which it works."""

import os
import re
import signal
from types import SimpleNamespace

import pytest
import torch

from wpl_d2.engine import launch
from wpl_d2.engine.launch import count_processes
from wpl_d2.utils.errors import InputError


def arguments(**changes):
    return SimpleNamespace(**{"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto", **changes})


def unreachable(args):
    raise AssertionError("was started")


WRONG = [
    ({"num_gpus": -1}, "--num-gpus: -1; give 1 or more"),
    ({"num_machines": 0}, "--num-machines: 0; give 1 or more"),
    ({"num_machines": -2}, "--num-machines: -2; give 1 or more"),
    ({"num_machines": 2, "machine_rank": 2, "dist_url": "tcp://a:1"}, "--machine-rank: 2; give .* from 0 to 1"),
    ({"num_machines": 2, "machine_rank": -1, "dist_url": "tcp://a:1"}, "--machine-rank: -1; give"),
    ({"num_machines": 2}, "--dist-url: auto; give the tcp://HOST:PORT of machine 0"),
    ({"num_machines": 2, "dist_url": "machine0"}, "--dist-url: machine0; give"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_processes_that_cannot_be_are_refused_before_anything_else(capsys, changes, message):
    with pytest.raises(SystemExit) as end:
        launch(unreachable, arguments(**changes), check=unreachable)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)


def test_more_gpus_than_there_are_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SystemExit) as end:
        launch(unreachable, arguments(num_gpus=2))
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: --num-gpus: 2 asked for, the machine has 1; ask for at most that\n"


def refuse(args):
    raise InputError("data: wrong; mend it")


@pytest.mark.parametrize("processes", [1, 4])
def test_what_a_check_finds_is_said_once_and_starts_nothing(capfd, processes):
    with pytest.raises(SystemExit) as end:
        launch(unreachable, arguments(num_gpus=processes), check=refuse)
    assert end.value.code == 2
    assert capfd.readouterr().err == "error: data: wrong; mend it\n"


def test_the_order_of_one_process():
    done = []
    launch(lambda args: done.append(("main", args)), args := arguments(), lambda args: done.append(("check", args)))
    assert done == [("check", args), ("main", args)]


def ended_by(signum):
    os.kill(os.getpid(), signum)
    raise AssertionError("went on")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_there_is_something_to_save_is_one_line(capsys, signum):
    before = [signal.getsignal(known) for known in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(SystemExit) as end:
        launch(unreachable, arguments(num_gpus=2), check=lambda args: ended_by(signum))
    assert end.value.code == 128 + signum
    assert capsys.readouterr().err == f"stopped by {signal.Signals(signum).name}; what was saved before is in place\n"
    assert [signal.getsignal(known) for known in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 1),
        ({"num_gpus": 0}, 1),
        ({"num_gpus": 3}, 3),
        ({"num_gpus": 2, "num_machines": 3}, 6),
        ({"num_gpus": 0, "num_machines": 2}, 2),
    ],
)
def test_processes_are_counted_on_all_machines(monkeypatch, changes, count):
    assert count_processes(arguments(**changes)) == count
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert count_processes(arguments(**changes)) == 5
