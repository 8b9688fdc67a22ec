"""What all processes staged, in one tensor."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def gathered(rows: Tensor) -> Tensor:
    """`rows` (N, ...) of all ranks in rank order; of this one alone where nothing is distributed. A collective call."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    rows = rows.contiguous()  # NCCL takes nothing else
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows)
    return torch.cat(parts)
