"""Steps that need more memory than there is: one error that says what to set, and a second try with smaller parts."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..data.loader import images_per_process
from ..utils.errors import InputError
from ..utils.signals import IN_TORCHRUN
from .launch import Main, count_processes, launch
from .setup import read_cfg

_MESSAGES = ("DefaultCPUAllocator: can't allocate memory", "CUDA error: out of memory")
"""Of errors that PyTorch raises as a plain `RuntimeError`."""


class MemoryLimitError(InputError):
    """A training step does not fit into the device's memory."""


@contextmanager
def memory_limit(cfg: Any, processes: int) -> Iterator[None]:
    """Turn PyTorch's errors of memory into one that says what to set.

    Args:
        cfg: of the training.
        processes: of the training.

    Raises:
        MemoryLimitError: there was not enough memory inside.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _MESSAGES):
            raise MemoryLimitError(_describe(cfg, processes)) from error
        raise


def finer_accumulation(cfg: Any, processes: int) -> int | None:
    """The SOLVER.GRAD_ACCUMULATION with micro-batches of half the size, or of the next smaller one that divides.

    Args:
        cfg: of the training.
        processes: of the training.

    Returns:
        None if there is none, as with one image at a time.
    """
    counts, now = _images(cfg, processes), cfg.SOLVER.GRAD_ACCUMULATION
    finer = range(2 * now, min(counts) + 1)
    return next((parts for parts in finer if all(count % parts == 0 for count in counts)), None)


def launch_within_memory(main: Main, args: argparse.Namespace, check: Main | None = None) -> None:
    """`launch` a training and, if a step does not fit into the memory, launch it once more with smaller micro-batches.

    The second try goes on from the newest checkpoint of the first one. There is none where this process cannot start
    all others again: under torchrun and on several machines.

    Args:
        main: trains as `args` says, in each process.
        args: as for `launch`.
        check: as for `launch`.

    Raises:
        SystemExit: as for `launch`.
    """
    try:
        return launch(main, args, check)
    except SystemExit as end:
        finer = None
        if isinstance(end.__cause__, MemoryLimitError) and IN_TORCHRUN not in os.environ and args.num_machines == 1:
            finer = finer_accumulation(read_cfg(args)[0], count_processes(args))
        if finer is None:
            raise
    # The error is gone, and with it what its traceback held.
    gc.collect()
    torch.cuda.empty_cache()
    print(f"trying once more, with SOLVER.GRAD_ACCUMULATION {finer}", file=sys.stderr)
    again = {"resume": True, "opts": [*args.opts, "SOLVER.GRAD_ACCUMULATION", str(finer)]}
    return launch(main, argparse.Namespace(**vars(args) | again), check)


def _batch_keys(cfg: Any) -> list[str]:
    """The keys of the labeled and, where there are some, of the unlabeled images of a step."""
    return ["IMS_PER_BATCH", *["UNLABELED_IMS_PER_BATCH"] * bool(cfg.DATASETS.UNLABELED)]


def _images(cfg: Any, processes: int) -> list[int]:
    """Labeled and, where there are some, unlabeled images of a process in a step."""
    return [images_per_process(cfg, key, processes) for key in _batch_keys(cfg)]


def _describe(cfg: Any, processes: int) -> str:
    solver, (height, width) = cfg.SOLVER, cfg.INPUT.CROP_SIZE
    parts = solver.GRAD_ACCUMULATION
    kinds = zip(_images(cfg, processes), ("labeled", "unlabeled"), strict=False)
    batch = " and ".join(f"{count // parts} {kind}" for count, kind in kinds)
    mends = []
    if finer := finer_accumulation(cfg, processes):
        mends.append(f"SOLVER.GRAD_ACCUMULATION to {finer}")
    keys = _batch_keys(cfg)
    if all(solver[key] % (2 * processes * parts) == 0 for key in keys):
        mends.append(" and ".join(f"SOLVER.{key} to {solver[key] // 2}" for key in keys))
    smaller = tuple(max(1, side // 16 * 7 // 10) * 16 + side % 16 for side in (height, width))
    mends.append(f'INPUT.CROP_SIZE to "{smaller}"')
    return (
        f"SOLVER.GRAD_ACCUMULATION: {parts}, but {batch} images of {width}x{height} at a time do not fit into the "
        f"memory of {cfg.MODEL.DEVICE}; set {', or '.join(mends)}"
    )
