"""Boxes around connected parts of a class, found on the device without waiting for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..weighting.sampling import at_cells
from .draws import choose_true

_STRIDE = 4
"""Pixels from cell to cell: the network's logits are of this stride, and its labels hold nothing finer."""
_SWEEPS = 12
"""Turns that a path inside a part may take; a part that winds more than that may fall into several."""


@torch.no_grad()
def component_boxes(labels: Tensor, classes: Tensor, shares: Tensor, min_area: float) -> tuple[Tensor, Tensor]:
    """The bounding box of one connected part of a class in each image, all large ones being equally likely.

    Parts are told apart and measured on every fourth pixel.

    Args:
        labels: (B, H, W) int64 class ids or `IGNORE`.
        classes: (B,) int64, whose part is wanted; -1: none.
        shares: (B,) float, uniform in [0, 1), which part is taken.
        min_area: a part must cover more than this share of the image.

    Returns:
        (B, H, W) bool, True inside the boxes, and (B,) bool, whether there is such a part.
    """
    height, width = labels.shape[-2:]
    cells = at_cells(labels, -(-height // _STRIDE), -(-width // _STRIDE))
    numbers = connected_components(cells == classes[:, None, None])
    areas = numbers.new_zeros(len(cells), cells[0].numel() + 1)
    areas.scatter_add_(1, numbers.flatten(1), torch.ones_like(numbers).flatten(1))
    large = areas > min_area * cells[0].numel()
    large[:, 0] = False  # the number of all that is outside
    part = numbers == choose_true(large, shares)[:, None, None]
    found = large.any(dim=1)
    boxes = _span(part.any(dim=2)).unsqueeze(2) & _span(part.any(dim=1)).unsqueeze(1)
    return at_cells(boxes & found[:, None, None], height, width), found


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


def _span(line: Tensor) -> Tensor:
    """(B, N) bool: True from the first True of a row to its last."""
    return (line.cumsum(dim=1) > 0) & (line.flip(1).cumsum(dim=1).flip(1) > 0)
