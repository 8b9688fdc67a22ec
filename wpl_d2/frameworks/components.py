"""Boxes around connected parts of a class, found on the device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..weighting.components import connected_components
from ..weighting.sampling import at_cells
from .draws import choose_true

_STRIDE = 4
"""Pixels from cell to cell: the network's logits are of this stride, and its labels hold nothing finer."""


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


def _span(line: Tensor) -> Tensor:
    """(B, N) bool: True from the first True of a row to its last."""
    return (line.cumsum(dim=1) > 0) & (line.flip(1).cumsum(dim=1).flip(1) > 0)
