"""Starting the processes of a run: Detectron2's launcher, torchrun, or CPU ranks where there is no GPU."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm

from ..errors import InputError, clear_errors
from .interrupt import StopRequest


def launch(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run `main(args)` in every process of the run.

    Under torchrun the processes exist already. Otherwise `--num-gpus` of them are started on this machine; without a
    GPU they are gloo ranks that share the cores.

    Args:
        main: a function that can be pickled.
        args: of Detectron2's `default_argument_parser`.

    Raises:
        InputError: more GPUs are asked for than there are.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _join_torchrun()
        _worker(main, args)
        return
    gpus = torch.cuda.device_count()
    if 0 < gpus < args.num_gpus:
        raise InputError(f"--num-gpus: {args.num_gpus} asked for, the machine has {gpus}; ask for at most that")
    if args.num_gpus * args.num_machines <= 1:
        try:
            _worker(main, args)
        except SystemExit as end:
            if end.code in (128 + signal.SIGTERM, 128 + signal.SIGINT):
                _leave(end.code)
            raise
        return
    machines = {"num_machines": args.num_machines, "machine_rank": args.machine_rank}
    try:
        with _meeting_place(args) as url, _forwarded_signals():
            detectron2_launch(_rank, args.num_gpus, dist_url=url, args=(main, args), **machines)
    except mp.ProcessExitedException as ended:
        # A negative one is a signal's number, to which shells add 128.
        raise SystemExit(ended.exit_code if ended.exit_code >= 0 else 128 - ended.exit_code) from ended


@contextmanager
def _meeting_place(args: argparse.Namespace) -> Iterator[str]:
    """Where ranks find each other: on one machine a file, since a free port may be taken before it is used."""
    if args.num_machines > 1:
        yield args.dist_url
        return
    with tempfile.TemporaryDirectory(prefix="wpl_d2_") as folder:
        yield f"file://{folder}/ranks"


def _rank(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """As `_worker`, in a process that was started for it and ends here."""
    status = 0
    try:
        _worker(main, args)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    _leave(status)


def _leave(status: int) -> NoReturn:
    """End this process at once, as a forked process of Python's does.

    The interpreter's own end takes a second and more, in which threads of a process group, or of loaders whose workers
    got the same signal, still run: processes were aborted there, with all done.
    """
    # The loaders' workers would notice only after seconds that they are alone.
    for child in mp.active_children():
        child.terminate()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _worker(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    _share_cores()
    try:
        with clear_errors():
            main(args)
        comm.synchronize()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _join_torchrun() -> None:
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))


def _share_cores() -> None:
    local = comm.get_local_size()
    if local > 1:
        # Fewer where OMP_NUM_THREADS asks for fewer.
        torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // local)))


@contextmanager
def _forwarded_signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGINT go to the ranks, which save and leave; their end ends this process."""

    def forward(signum: int, frame: FrameType | None) -> None:
        for process in mp.active_children():
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signum)
        # A second signal would cut the saving short.
        for known in StopRequest.SIGNALS:
            signal.signal(known, signal.SIG_IGN)

    previous = {known: signal.signal(known, forward) for known in StopRequest.SIGNALS}
    try:
        yield
    finally:
        for known, handler in previous.items():
            signal.signal(known, handler)
