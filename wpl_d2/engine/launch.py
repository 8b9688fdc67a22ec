"""Starting the processes of a run: Detectron2's launcher, torchrun, or CPU ranks where there is no GPU."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable
from types import FrameType

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm

from ..errors import InputError, clear_errors


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
    url = "auto" if args.num_machines == 1 else args.dist_url
    if args.num_gpus * args.num_machines > 1:
        _forward_signals()
    machines = {"num_machines": args.num_machines, "machine_rank": args.machine_rank}
    try:
        detectron2_launch(_worker, args.num_gpus, dist_url=url, args=(main, args), **machines)
    except mp.ProcessExitedException as ended:
        # A negative one is a signal's number, to which shells add 128.
        raise SystemExit(ended.exit_code if ended.exit_code >= 0 else 128 - ended.exit_code) from ended


def _worker(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    # A started process inherits that its parent leaves Ctrl-C to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _share_cores()
    try:
        with clear_errors():
            main(args)
        comm.synchronize()
    finally:
        # A gloo rank whose peer is gone before its own connections are closed is aborted at its exit.
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
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local))


def _forward_signals() -> None:
    """Pass SIGTERM and SIGINT on to the workers, which save and leave; their end ends this process."""

    def forward(signum: int, frame: FrameType | None) -> None:
        for process in mp.active_children():
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signum)
        # Ctrl-C reaches a terminal's whole process group by itself, and a second signal would cut the saving short.
        for known in (signal.SIGTERM, signal.SIGINT):
            signal.signal(known, signal.SIG_IGN)

    # SIGINT is not forwarded for the same reason.
    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
