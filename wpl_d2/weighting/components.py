"""Connected components of masks, found on the device without waiting for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SWEEPS = 12
"""Turns that a path inside a part may take; a part that winds more than that may fall into several."""


def connected_components(mask: Tensor) -> Tensor:
    """Number the 8-connected parts of masks.

    Every pixel begins with a number of its own; in each sweep the largest number goes to the 8 neighbours and along
    whole runs of True, row by row and column by column.

    Args:
        mask: (B, H, W) bool, of less than 2^24 pixels an image.

    Returns:
        (B, H, W) int64, from 1 on and different for each part of an image; 0 outside of the mask.
    """
    height, width = mask.shape[-2:]
    numbers = torch.arange(1.0, height * width + 1, device=mask.device).view(1, height, width) * mask
    rows, columns = (~mask).cumsum(dim=2), (~mask).mT.cumsum(dim=2)
    for _ in range(_SWEEPS):
        numbers = F.max_pool2d(numbers, kernel_size=3, stride=1, padding=1) * mask
        numbers = _spread(numbers, rows) * mask
        numbers = _spread(numbers.mT, columns).mT * mask
    return numbers.long()


def _spread(numbers: Tensor, runs: Tensor) -> Tensor:
    """Give each entry of (B, N, M) numbers the largest one of its run; `runs` (B, N, M) int64 counts them from 0."""
    largest = numbers.new_zeros(*numbers.shape[:2], numbers.shape[2] + 1)
    return largest.scatter_reduce_(2, runs, numbers, "amax").gather(2, runs)
