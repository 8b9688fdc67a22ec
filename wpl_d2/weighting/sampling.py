"""Random embeddings of each class, sums over the pixels of each, and the resampling of maps to cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..structures import IGNORE
from ..utils.cpu_speed import sort
from .indices import arange, class_edges, nearest_index

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
        the remaining rows are any cells', and labeled `IGNORE`, so that no shape depends on the labels.
    """
    height, width = embedding.shape[-2:]
    cells = at_cells(label, height, width).flatten()
    draws = torch.randint(_DRAWS, cells.shape, device=cells.device)
    # Sorted by class and randomly within a class, whose first n cells are its sample.
    keys, order = sort(draws.add_(cells, alpha=_DRAWS))
    edges = class_edges(keys, num_classes, _DRAWS)
    place = edges[:-1, None] + arange(0, n, device=cells.device)
    missing = place >= edges[1:, None]
    cell = order[place.flatten().clamp_(max=len(cells) - 1)]
    features = embedding.flatten(2)[cell // (height * width), :, cell % (height * width)]
    labels = arange(0, num_classes, device=cells.device).unsqueeze(1)
    return features, labels.masked_fill(missing, IGNORE).flatten()


def class_sums(values: Sequence[Tensor], labels: Tensor, num_classes: int) -> Tensor:
    """The number of each class's pixels, and below it the sums of their values in K maps: (1 + K, C) float32.

    Args:
        values: K maps (B, H, W) of float32 or bool.
        labels: (B, H, W) int64 class ids; pixels of higher ones, such as `IGNORE`, do not count.
        num_classes: number of classes, C.
    """
    rows = torch.stack([torch.ones_like(labels, dtype=torch.float32), *values]).flatten(1)
    sums = rows.new_zeros(len(rows), num_classes + 1)
    sums.scatter_add_(1, labels.flatten().clamp(max=num_classes).expand_as(rows), rows)
    return sums[:, :num_classes]


def at_cells(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps (..., H, W) of any dtype -> (..., height, width), the nearest pixel of each cell (`nearest-exact`)."""
    if maps.shape[-2:] == (height, width):
        return maps
    rows = nearest_index(maps.shape[-2], height, maps.device)
    columns = nearest_index(maps.shape[-1], width, maps.device)
    return maps[..., rows.unsqueeze(1), columns]
