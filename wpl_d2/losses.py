"""Losses of pixels, hard example mining, and the one place where a loss of pixels becomes a number, in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .structures import IGNORE, LossTerm
from .utils.errors import check_name


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each pixel, in float32 whatever the dtype of the logits.

    Args:
        logits: (B, C, H, W) float.
        target: (B, H, W) int64 class ids, `IGNORE` where there is none.

    Returns:
        (B, H, W) float32, 0 where the target is `IGNORE`.
    """
    return F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="none")


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


def info_nce(anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """How badly anchors tell the positive of their class from their negatives (U2PL, eq. 4).

    The mean over a class's anchors of -log(exp(a+ / t) / (exp(a+ / t) + sum of exp(a- / t))), where a+ and a- are the
    cosines between an anchor and its positive and negatives.

    Args:
        anchors: (C, A, D) float, A anchors of each class; they alone get a gradient.
        positives: (C, D) float, one a class.
        negatives: (C, A, M, D) float of unit length or zero, M for each anchor.
        temperature: t.

    Returns:
        (C,) float32.
    """
    # Autocast would round the cosines to 8 bits.
    with torch.autocast(anchors.device.type, enabled=False):
        anchors = F.normalize(anchors.float(), dim=-1)
        positives = F.normalize(positives.detach().float(), dim=-1)
        near = torch.einsum("cad,cd->ca", anchors, positives) / temperature
        far = torch.einsum("cad,camd->cam", anchors, negatives.detach().float()) / temperature
        return (torch.cat([near.unsqueeze(-1), far], dim=-1).logsumexp(dim=-1) - near).mean(dim=-1)


NORMS = ("valid", "weight_sum")


def reduce_term(term: LossTerm, norm: str = "valid") -> Tensor:
    """coefficient * sum(weight * mask * loss) / sum(norm), the weight being 1 where the term has none.

    Args:
        term: the loss.
        norm: "valid": as above (paper, eq. 5 and 6); "weight_sum": / sum(weight * norm) (official code).

    Returns:
        A float32 scalar with a gradient, 0 where the denominator is 0.

    Raises:
        ValueError: an unknown norm.
    """
    check_name("WEIGHTING.NORM", norm, NORMS)
    factor, share = term.mask.float(), term.norm.float()
    if term.weight is not None:
        factor = factor * term.weight
        share = share * term.weight if norm == "weight_sum" else share
    loss = term.pixel_loss(term.logits, term.target)
    # A pixel that does not count must not spoil the sum by a loss that is not finite.
    total = torch.where(factor == 0, 0.0, factor * loss).sum()
    count = share.sum()
    mean = total / torch.where(count > 0, count, 1.0)
    return term.coefficient * torch.where(count > 0, mean, 0.0)
