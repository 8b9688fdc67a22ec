"""Gathering and summing tensors over processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor


def sum_over_ranks(counts: Tensor) -> NDArray[Any] | None:
    """Sum `counts` over all processes, which all must call this; None on all but the main one.

    Args:
        counts: of any shape and dtype, the same on all processes.
    """
    from detectron2.utils import comm  # not where weights alone are used

    parts = comm.gather(counts.cpu().numpy(), dst=0)
    return np.sum(parts, axis=0) if comm.is_main_process() else None


def all_gather_rows(rows: Tensor) -> Tensor:
    """Concatenate `rows` (N, ...) of all ranks in rank order, which all must call; alone, `rows` itself."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    rows = rows.contiguous()  # NCCL wants it so
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows)
    return torch.cat(parts)
