"""Tensors of all processes, gathered or summed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from detectron2.utils import comm
from numpy.typing import NDArray
from torch import Tensor


def sum_over_ranks(counts: Tensor) -> NDArray[Any] | None:
    """The sum of all processes' `counts` on the main one, None on the others. All must call it.

    Args:
        counts: any shape and type, the same everywhere.
    """
    parts = comm.gather(counts.cpu().numpy(), dst=0)
    return np.sum(parts, axis=0) if comm.is_main_process() else None


def all_gather_rows(rows: Tensor) -> Tensor:
    """`rows` (N, ...) of all ranks in rank order; of this one alone where nothing is distributed. A collective call."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    rows = rows.contiguous()  # NCCL takes nothing else
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows)
    return torch.cat(parts)
