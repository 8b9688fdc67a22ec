"""Starting and ending the processes of a run, on GPUs or on the CPU, also under torchrun."""

from __future__ import annotations

import argparse
import logging
import multiprocessing as mp
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue
from typing import NoReturn, TypeAlias

import torch
import torch.distributed as dist
from detectron2.engine import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch.multiprocessing import start_processes

from ..utils.errors import InputError, clear_errors
from ..utils.signals import (
    IN_TORCHRUN,
    STOP_SIGNALS,
    StopRequest,
    blocked_signals,
    exit_on_signal,
    exit_status,
    print_stopped,
    set_parent_death_signal,
    signal_handlers,
    unblock_signals,
)

_POLL = 0.2
"""Seconds between two checks of the ranks."""
_GRACE = 10.0
"""Seconds for ranks to end by themselves once one has ended early, and again after SIGTERM."""

_FAILED, _INPUT_ERROR = 1, 2
"""Exit statuses of ranks, after an exception and after an `InputError`."""
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")

Main = Callable[[argparse.Namespace], None]
Failures: TypeAlias = "SimpleQueue[tuple[type[InputError] | None, str]]"
"""Errors of ranks in order of time: the class of an `InputError` and its message, or None and a traceback."""


def launch(main: Main, args: argparse.Namespace, check: Main | None = None) -> None:
    """Check a run, then call `main(args)` in each of its processes.

    Under torchrun the processes exist already. Otherwise `--num-gpus` of them are started on this machine; without a
    GPU they are gloo ranks that share the cores. An error in any of them is reported once. A stop signal reaches all of
    them, and no process is left behind.

    Args:
        main: must be picklable.
        args: of Detectron2's `default_argument_parser`.
        check: called once per machine, before any process is started, to raise an `InputError` on wrong `args`.

    Raises:
        SystemExit: on errors, with 2 for an `InputError`, and on signals with 128 + the signal's number.
    """
    with clear_errors():
        if IN_TORCHRUN in os.environ:
            _run_in_torchrun(main, args, check)
            return
        with signal_handlers(exit_on_signal):
            _check_processes(args)
            if check is not None:
                check(args)
            if count_processes(args) == 1:
                _run_alone(main, args)
            else:
                _run_ranks(main, args)


def count_processes(args: argparse.Namespace) -> int:
    """The number of processes of a run, on all machines; `args` as for `launch`."""
    if IN_TORCHRUN in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return _local_size(args) * args.num_machines


def _local_size(args: argparse.Namespace) -> int:
    return max(1, args.num_gpus)


def _check_processes(args: argparse.Namespace) -> None:
    """Raise an `InputError` if so many processes cannot be started, or could not connect."""
    gpus = torch.cuda.device_count()
    for key in ("num_gpus", "num_machines"):
        if getattr(args, key) < (key == "num_machines"):
            raise InputError(f"--{key.replace('_', '-')}: {getattr(args, key)}; give 1 or more")
    if 0 < gpus < args.num_gpus:
        raise InputError(f"--num-gpus: {args.num_gpus} asked for, the machine has {gpus}; ask for at most that")
    if args.num_machines > 1:
        last = args.num_machines - 1
        if not 0 <= args.machine_rank <= last:
            raise InputError(f"--machine-rank: {args.machine_rank}; give each machine another one from 0 to {last}")
        if not args.dist_url.startswith(("tcp://", "file://")):
            raise InputError(f"--dist-url: {args.dist_url}; give the tcp://HOST:PORT of machine 0, on all machines")


def _run_alone(main: Main, args: argparse.Namespace) -> None:
    try:
        main(args)
    except SystemExit as end:
        if isinstance(end.code, int) and end.code in map(exit_status, STOP_SIGNALS):
            _exit(end.code)
        raise


def _run_in_torchrun(main: Main, args: argparse.Namespace, check: Main | None) -> None:
    # Signals end the process at once and silently: torchrun signals all of its processes, and reports it.
    with signal_handlers(signal.SIG_DFL):
        if check is not None and os.environ["LOCAL_RANK"] == "0":
            check(args)
        try:
            rank, world_size, local_rank, local_size = (int(os.environ[key]) for key in _TORCHRUN)
            _init_process_group(rank, world_size, local_rank, local_size)
            _limit_threads()
            main(args)
            comm.synchronize()
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


def _run_ranks(main: Main, args: argparse.Namespace) -> None:
    if not torch.cuda.is_available():
        print(f"no GPU here: {_local_size(args)} processes on the CPU", file=sys.stderr, flush=True)
    failures = mp.get_context("spawn").SimpleQueue()
    with _rendezvous(args) as url, StopRequest() as stop:
        # Without its handlers yet, a rank would answer Ctrl-C with a traceback.
        with blocked_signals([signal.SIGINT], "spawn"):
            arguments = (main, args, url, failures, mp.get_start_method())
            ranks = start_processes(_run_rank, arguments, _local_size(args), join=False).processes
        try:
            status = _wait(ranks, stop)
            _join_or_terminate(ranks)
        finally:
            for rank in ranks:
                rank.kill()
                rank.join()
    if not status:
        return
    if stop.signum:
        if status not in map(exit_status, STOP_SIGNALS):  # otherwise a rank has printed more
            print_stopped(stop.signum)
        raise SystemExit(exit_status(stop.signum))
    if status < 0:
        print(f"error: a process was ended by {signal.Signals(-status).name}", file=sys.stderr)
        raise SystemExit(exit_status(-status))
    if status in (_FAILED, _INPUT_ERROR) and not failures.empty():
        kind, text = failures.get()
        if kind:
            raise kind(text)
        sys.stderr.write(text)
    raise SystemExit(status)


def _wait(ranks: Sequence[SpawnProcess], stop: StopRequest) -> int:
    """Wait until all ranks have succeeded or one has failed, and forward a stop signal to them.

    Returns:
        0, or the exit status of the failed rank; of several the most informative one, since ranks that lose another one
        fail too.
    """
    forwarded = False
    while True:
        running = [rank.sentinel for rank in ranks if rank.is_alive()]
        if statuses := [rank.exitcode for rank in ranks if rank.exitcode]:
            return min(statuses, key=lambda status: (status >= 0, status == _FAILED))
        if not running:
            return 0
        if stop.signum and not forwarded:
            forwarded = True
            for rank in ranks:
                if rank.is_alive() and rank.pid is not None:
                    os.kill(rank.pid, stop.signum)
                rank.terminate()  # for a rank that does not handle Ctrl-C yet
        connection.wait(running, _POLL)


def _join_or_terminate(ranks: Sequence[SpawnProcess]) -> None:
    """Wait for ranks to end, then send SIGTERM and wait again."""
    for terminate in (False, True):
        deadline = time.monotonic() + _GRACE
        for rank in ranks if terminate else ():
            rank.terminate()
        for rank in ranks:
            rank.join(max(0.0, deadline - time.monotonic()))


@contextmanager
def _rendezvous(args: argparse.Namespace) -> Iterator[str]:
    """The URL by which ranks connect; on one machine a file, since a free port may be taken before it is used."""
    if args.num_machines > 1:
        yield args.dist_url
        return
    with tempfile.TemporaryDirectory(prefix="wpl_d2_") as folder:
        yield f"file://{folder}/ranks"


def _run_rank(local_rank: int, main: Main, args: argparse.Namespace, url: str, failures: Failures, method: str) -> None:
    """Run one rank, which a signal ends at once while there is nothing to save, even in a collective operation."""
    # Loaders' workers get the start method of a run with one process, rather than this process's.
    mp.set_start_method(method, force=True)
    with signal_handlers(signal.SIG_DFL):
        unblock_signals()
        set_parent_death_signal(signal.SIGTERM)
        status = _FAILED
        try:
            rank = args.machine_rank * _local_size(args) + local_rank
            _init_process_group(rank, count_processes(args), local_rank, _local_size(args), url)
            _limit_threads()
            main(args)
            comm.synchronize()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except InputError as error:
            status = _INPUT_ERROR
            failures.put((type(error), str(error)))
        except Exception:
            failures.put((None, traceback.format_exc()))
        _exit(status)


def _exit(status: int) -> NoReturn:
    """End this process without the interpreter's shutdown, as Python's forked processes end.

    The shutdown takes over a second, in which threads of process groups and loaders still run, and were seen to abort
    the process.
    """
    for child in mp.active_children():
        child.kill()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _init_process_group(rank: int, world_size: int, local_rank: int, local_size: int, url: str = "env://") -> None:
    """Connect to the other ranks, as Detectron2's `launch` does."""
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, url, timeout=DEFAULT_TIMEOUT, world_size=world_size, rank=rank)
    comm.create_local_process_group(local_size)


def _limit_threads() -> None:
    """Share the cores between the ranks of this machine; OMP_NUM_THREADS may ask for fewer."""
    local = comm.get_local_size()
    if local > 1:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // local)))
