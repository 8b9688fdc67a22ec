"""Sums over processes."""

from __future__ import annotations

from typing import Any

import numpy as np
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
