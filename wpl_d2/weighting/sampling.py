"""Random embeddings of each class, sums over the pixels of each, and the resampling of maps to cells."""

from __future__ import annotations

import torch
from torch import Tensor

from ..structures import IGNORE
from ..utils.cpu_speed import argsort
from .similarity import nearest_index

_DRAWS = 1 << 32
"""Number of random integers; a class id is placed above their bits."""


@torch.no_grad()
def sample_per_class(embedding: Tensor, label: Tensor, num_classes: int, n: int) -> tuple[Tensor, Tensor]:
    """Sample n distinct cells of each class, all equally likely, with torch's global generator.

    Args:
        embedding: (B, D, h, w) float.
        label: (B, H, W) int64 class ids or `IGNORE`; a cell takes its nearest pixel's (`nearest-exact`).
        num_classes: number of classes, C.
        n: cells per class.

    Returns:
        Embeddings (C * n, D) in class order and their class ids (C * n,) int64. For a class with fewer than n cells
        the remaining rows are 0 and labeled `IGNORE`, so that no shape depends on the labels.
    """
    height, width = embedding.shape[-2:]
    cells = at_cells(label, height, width).flatten()
    draws = torch.randint(_DRAWS, cells.shape, device=cells.device)
    # Sorted by class and randomly within a class, whose first n cells are its sample.
    order = argsort(cells * _DRAWS + draws)
    ids = torch.arange(num_classes, device=cells.device)
    ordered = cells[order]
    start, end = torch.searchsorted(ordered, ids), torch.searchsorted(ordered, ids, right=True)
    place = start.unsqueeze(1) + torch.arange(n, device=cells.device)
    missing = (place >= end.unsqueeze(1)).flatten()
    cell = order[place.flatten().clamp_(max=len(cells) - 1)]
    image, rest = cell // (height * width), cell % (height * width)
    features = embedding[image, :, rest // width, rest % width]
    labels = ids.repeat_interleave(n, output_size=num_classes * n)
    return features.masked_fill(missing.unsqueeze(1), 0.0), labels.masked_fill(missing, IGNORE)


def class_sums(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The sum of each class's values, and their number: (2, C) of the values' type.

    Args:
        values: (B, H, W) float.
        labels: (B, H, W) int64 class ids; pixels of higher ones, such as `IGNORE`, do not count.
        num_classes: number of classes, C.
    """
    numbers, flat = labels.flatten().clamp(max=num_classes), values.flatten()
    sums = flat.new_zeros(2, num_classes + 1)
    sums[0].scatter_add_(0, numbers, flat)
    sums[1].scatter_add_(0, numbers, torch.ones_like(flat))
    return sums[:, :num_classes]


def at_cells(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps (..., H, W) of any dtype -> (..., height, width), the nearest pixel of each cell (`nearest-exact`)."""
    rows = nearest_index(maps.shape[-2], height, maps.device)
    columns = nearest_index(maps.shape[-1], width, maps.device)
    return maps[..., rows.unsqueeze(1), columns]
