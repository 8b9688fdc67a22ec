"""Connected components on the device, without a host sync, and means over regions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .sampling import at_cells

STRIDE = 4
"""Of the cells that components are found on, in pixels; it is the logits' own, and labels show no finer detail."""
_SWEEPS = 12
"""Turns that a path inside a component may take; one that winds more may be split into several."""


def on_cells(maps: Tensor) -> Tensor:
    """Maps (..., H, W) at every `STRIDE`-th pixel: (..., ceil(H / STRIDE), ceil(W / STRIDE))."""
    return at_cells(maps, -(-maps.shape[-2] // STRIDE), -(-maps.shape[-1] // STRIDE))


def connected_components(mask: Tensor) -> Tensor:
    """Number the 8-connected components of masks.

    Every pixel starts with a number of its own; each sweep spreads the largest number to the 8 neighbors and along
    whole runs of True in rows and columns.

    Args:
        mask: (B, H, W) bool, of less than 2^24 pixels an image.

    Returns:
        (B, H, W) int64, from 1 on and different for each component of an image; 0 outside of the mask.
    """
    height, width = mask.shape[-2:]
    numbers = torch.arange(1.0, height * width + 1, device=mask.device).view(1, height, width) * mask
    rows, columns = (~mask).cumsum(dim=2), (~mask).mT.cumsum(dim=2)
    for _ in range(_SWEEPS):
        numbers = F.max_pool2d(numbers, kernel_size=3, stride=1, padding=1) * mask
        numbers = _spread(numbers, rows) * mask
        numbers = _spread(numbers.mT, columns).mT * mask
    return numbers.long()


def label_components(labels: Tensor, classes: Tensor) -> Tensor:
    """Number the 8-connected components of some classes.

    Args:
        labels: (B, H, W) int64 class ids or `IGNORE`.
        classes: (C,) int64 class ids.

    Returns:
        (B, H, W) int64, from 1 on and different for each component of an image; 0 for other classes and `IGNORE`.
    """
    masks = labels.unsqueeze(1) == classes.view(-1, 1, 1)
    # A component's number is the position of one of its pixels, so that no two classes share one.
    return connected_components(masks.flatten(0, 1)).view(masks.shape).sum(dim=1)


def region_mean(values: Tensor, regions: Tensor, count: int) -> Tensor:
    """The mean of each pixel's region, (B, H, W).

    Args:
        values: (B, H, W) float.
        regions: (B, H, W) int64 region ids in [0, count), separate for each image.
        count: number of ids.
    """
    flat, numbers = values.flatten(1), regions.flatten(1)
    sums = flat.new_zeros(len(flat), count).scatter_add_(1, numbers, flat)
    sizes = flat.new_zeros(len(flat), count).scatter_add_(1, numbers, torch.ones_like(flat))
    return (sums / sizes.clamp(min=1)).gather(1, numbers).view_as(values)


def _spread(numbers: Tensor, runs: Tensor) -> Tensor:
    """Give each entry of (B, N, M) numbers the largest one of its run; `runs` (B, N, M) int64 counts them from 0."""
    largest = numbers.new_zeros(*numbers.shape[:2], numbers.shape[2] + 1)
    return largest.scatter_reduce_(2, runs, numbers, "amax").gather(2, runs)
