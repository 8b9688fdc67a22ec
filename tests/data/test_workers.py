"""The processes that read images: what signals do to them, and when they end."""

import gc
import os
import signal
import subprocess
import sys
import time
from multiprocessing.util import register_after_fork

import cv2
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetFromList
from torch.utils.data import Dataset

from wpl_d2.data import EvalMapper, build_labeled_loader, build_unlabeled_loader
from wpl_d2.data.loader import WorkerLoader, build_test_loader, labeled_dataset, unlabeled_dataset
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
    fail_after_a_sample_of(range(3))


def fail_during_a_sample():
    fail_after_a_sample_of(Slow())


def fail_after_a_sample_of(dataset):
    samples = iter(WorkerLoader(dataset, num_workers=1, persistent_workers=True, collate_fn=first))
    next(samples)
    raise ValueError("of the trainer")


@pytest.mark.parametrize("fail", [fail_between_samples, pytest.param(fail_during_a_sample, marks=pytest.mark.slow)])
def test_a_trainer_that_fails_does_not_wait_for_workers(fail):
    command = [sys.executable, "-c", call(fail.__name__)]
    trainer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert trainer.stderr.endswith("ValueError: of the trainer\n")


class Measured(Dataset):
    """What a worker has of its own: threads, and memory after it looked for garbage among the trainer's objects."""

    def __init__(self):
        self.objects = [[index] for index in range(300_000)]

    def __getitem__(self, index):
        before = self.private_memory()
        gc.collect()
        return torch.get_num_threads(), cv2.getNumThreads(), self.private_memory() - before

    def __len__(self):
        return 1

    @staticmethod
    def private_memory():
        """In bytes."""
        with open("/proc/self/smaps_rollup") as file:
            (kib,) = (line.split()[1] for line in file if line.startswith("Private_Dirty"))
        return int(kib) * 1024


@pytest.mark.parametrize("gpu", [False, True])
def test_workers_of_training_stay_and_are_ahead(tree, monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    for loader in (build_labeled_loader, build_unlabeled_loader):
        built = loader(tree.cfg("DATALOADER.NUM_WORKERS", 2))
        assert (built.persistent_workers, built.prefetch_factor, built.pin_memory) == (True, 2, gpu)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_has_one_thread_and_copies_none_of_the_trainers_memory(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        ((ours, theirs, copied),) = (sample for (sample,) in WorkerLoader(Measured(), num_workers=1, collate_fn=first))
    finally:
        torch.set_num_threads(threads)
    assert (ours, theirs) == (1, 1)
    assert copied < 4 * 2**20  # of 20 MiB of lists


def test_lists_of_images_are_one_block_of_memory_each(tree):
    # Python writes into each object that it looks at, and so would copy lists of them into each worker.
    cfg = tree.cfg("INPUT.PASTE.PROB", 0.5)
    labeled = labeled_dataset(cfg)
    lists = [labeled.records, labeled.mapper.records, unlabeled_dataset(cfg).records]
    lists.append(build_test_loader(DatasetCatalog.get(f"{tree.name}_val"), EvalMapper(), 0).dataset._dataset)
    assert [type(records) for records in lists] == [DatasetFromList] * 4
    assert not any(isinstance(records._lst, list) for records in lists)


def _runs(pid):
    """Whether a process is there and is more than the record of one that ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
