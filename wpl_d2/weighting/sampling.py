"""Random pixels of each class, in shapes that do not depend on the labels."""

from __future__ import annotations

import torch
from torch import Tensor

from ..structures import IGNORE
from .similarity import nearest_index

_DRAWS = 1 << 32
"""Distinct random numbers; a class id stands above them in one integer."""


@torch.no_grad()
def sample_per_class(embedding: Tensor, label: Tensor, num_classes: int, n: int) -> tuple[Tensor, Tensor]:
    """Draw n distinct cells of each class, equally likely, with torch's global generator.

    Args:
        embedding: (B, D, h, w) float.
        label: (B, H, W) int64 class ids or `IGNORE`; a cell takes its nearest pixel's (`nearest-exact`).
        num_classes: number of classes, C.
        n: cells per class.

    Returns:
        Embeddings (C * n, D) in class order and their class ids (C * n,) int64. Where a class has fewer than
        n cells, the rows that remain are 0 and labeled `IGNORE`.
    """
    height, width = embedding.shape[-2:]
    cells = at_cells(label, height, width).flatten()
    draws = torch.randint(_DRAWS, cells.shape, device=cells.device)
    # Sorted by class, at random within one: a class's first n are its sample.
    order = (cells * _DRAWS + draws).argsort()
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


def at_cells(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps (..., H, W) of any dtype -> (..., height, width), each cell's nearest pixel (`nearest-exact`)."""
    rows = nearest_index(maps.shape[-2], height, maps.device)
    columns = nearest_index(maps.shape[-1], width, maps.device)
    return maps[..., rows.unsqueeze(1), columns]
