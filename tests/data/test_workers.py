"""The processes that read images: what signals do to them, and when they end."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing.util import register_after_fork

import pytest
from torch.utils.data import Dataset

from wpl_d2.data.loader import WorkerLoader
from wpl_d2.utils.signals import STOP_SIGNALS

METHODS = ["fork", pytest.param("spawn", marks=pytest.mark.slow)]


class Struck(Dataset):
    """A data set that every signal strikes as soon as it is in a worker, long before the worker can do anything."""

    def __init__(self):
        register_after_fork(self, Struck.strike)

    def __setstate__(self, state):
        self.strike()

    def strike(self):
        for signum in STOP_SIGNALS:
            os.kill(os.getpid(), signum)

    def __getitem__(self, index):
        self.strike()
        return os.getpid(), signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def __len__(self):
        return 3


def first(samples):
    return samples


@pytest.mark.parametrize("method", METHODS)
def test_signals_to_workers_are_not_for_them(method):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    loader = WorkerLoader(Struck(), num_workers=2, multiprocessing_context=method, collate_fn=first)
    ((pid, mask),), *others = loader
    assert len(others) == 2
    assert pid != os.getpid()
    assert not mask & {*STOP_SIGNALS}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


class Slow(Dataset):
    def __getitem__(self, index):
        time.sleep(0 if index == 0 else 600)
        return os.getpid()

    def __len__(self):
        return 3


def wait_for_ever():
    """Say which worker there is, then wait for its next sample."""
    loader = iter(WorkerLoader(Slow(), num_workers=1, collate_fn=first))
    print(*next(loader), flush=True)
    next(loader)


def call(function):
    """Python code that calls a function of this file."""
    return f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_workers as t; t.{function}()"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker looks every few seconds for its trainer")
def test_workers_end_with_a_trainer_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", call("wait_for_ever")], stdout=subprocess.PIPE, text=True) as trainer:
        worker = int(trainer.stdout.readline())
        os.kill(worker, 0)
        trainer.kill()
    deadline = time.monotonic() + 4  # torch's own look is every five seconds
    while _runs(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def fail_between_samples():
    samples = iter(WorkerLoader(range(3), num_workers=1, persistent_workers=True, collate_fn=first))
    next(samples)
    raise ValueError("of the trainer")


def test_a_trainer_that_fails_does_not_wait_for_workers():
    command = [sys.executable, "-c", call("fail_between_samples")]
    trainer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert trainer.stderr.endswith("ValueError: of the trainer\n")


def _runs(pid):
    """Whether a process is there and is more than the record of one that ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
