"""Online hard example mining."""

from __future__ import annotations

import torch
from torch import Tensor

from ..structures import IGNORE
from .pixel import cross_entropy


@torch.no_grad()
def ohem_mask(logits: Tensor, target: Tensor, threshold: float = 0.7, *, min_kept: int) -> Tensor:
    """The hard pixels of a batch, to whose mean the loss is then restricted.

    A pixel with a target is kept if its true class has a probability of at most max(threshold, the
    min_kept-th smallest of the batch); all are kept if they are fewer than min_kept.

    Args:
        logits: (B, C, H, W) float.
        target: (B, H, W) int64 class ids, `IGNORE` where there is none.
        threshold: probability up to which every pixel is kept.
        min_kept: pixels of the batch kept at least.

    Returns:
        (B, H, W) bool, False where the target is `IGNORE`.

    Raises:
        ValueError: min_kept < 1.
    """
    if min_kept < 1:
        raise ValueError(f"ohem_mask: min_kept is {min_kept}; give the number of pixels to keep, 1 or more")
    valid = target != IGNORE
    # Pixels without a target sort last: a min_kept-th smallest among them lets every valid pixel pass.
    probability = torch.exp(-cross_entropy(logits, target)).masked_fill(~valid, torch.inf)
    pixels = probability.flatten()
    limit = pixels.kthvalue(min(min_kept, len(pixels))).values.clamp(min=threshold)
    return valid & (probability <= limit)
