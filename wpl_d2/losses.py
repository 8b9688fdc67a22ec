"""Per-pixel losses, hard example mining, and the reduction of a `LossTerm` to a number, in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .structures import IGNORE, LossTerm
from .utils.errors import check_name


def cross_entropy(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """The cross entropy of each pixel, computed in float32.

    Args:
        logits: (B, C, H, W) float.
        target: (B, H, W) int64 class ids, `IGNORE` where there is none.
        class_weights: (C,) float32, factors of the pixels of each class; None: all are 1.

    Returns:
        (B, H, W) float32, 0 where the target is `IGNORE`.
    """
    return F.cross_entropy(logits.float(), target, class_weights, ignore_index=IGNORE, reduction="none")


def squared_distance(logits: Tensor, target: Tensor) -> Tensor:
    """The squared L2 distance of each pixel's class probabilities, computed in float32.

    Args:
        logits: (B, C, H, W) float.
        target: (B, C, H, W) float32, probabilities.

    Returns:
        (B, H, W) float32.
    """
    return (logits.float().softmax(dim=1) - target).square().sum(dim=1)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """The cross entropy of each pixel with class probabilities, computed in float32.

    Args:
        logits: (B, C, H, W) float.
        target: (B, C, H, W) float, the probabilities.

    Returns:
        (B, H, W) float32.
    """
    return F.cross_entropy(logits.float(), target, reduction="none")


def kl_divergence(logits: Tensor, target: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of each pixel's class probabilities from given ones, computed in float32.

    Args:
        logits: (B, C, H, W) float.
        target: (B, C, H, W) float, the given probabilities.

    Returns:
        (B, H, W) float32, the sum of target * log(target / probability).
    """
    return F.kl_div(logits.float().log_softmax(dim=1), target, reduction="none").sum(dim=1)


def entropy(logits: Tensor) -> Tensor:
    """The entropy of each pixel's class probabilities in nats: logits (B, C, H, W) -> (B, H, W) float32."""
    log_probability = logits.float().log_softmax(dim=1)
    return -(log_probability.exp() * log_probability).sum(dim=1)


@torch.no_grad()
def ohem_mask(logits: Tensor, target: Tensor, threshold: float = 0.7, *, min_kept: int) -> Tensor:
    """The hard pixels of a batch, which online hard example mining (OHEM) restricts the loss to.

    A pixel with a target is kept if the probability of its true class is at most max(threshold, the min_kept-th
    smallest of the batch); all are kept if they are fewer than min_kept.

    Args:
        logits: (B, C, H, W) float.
        target: (B, H, W) int64 class ids, `IGNORE` where there is none.
        threshold: probability up to which every pixel is kept.
        min_kept: least number of kept pixels of the batch.

    Returns:
        (B, H, W) bool, False where the target is `IGNORE`.

    Raises:
        ValueError: min_kept < 1.
    """
    if min_kept < 1:
        raise ValueError(f"ohem_mask: min_kept is {min_kept}; give the number of pixels to keep, 1 or more")
    valid = target != IGNORE
    # Pixels without a target sort last: with fewer than min_kept valid pixels the limit is infinite.
    probability = torch.exp(-cross_entropy(logits, target)).masked_fill(~valid, torch.inf)
    pixels = probability.flatten()
    limit = pixels.kthvalue(min(min_kept, len(pixels))).values.clamp(min=threshold)
    return valid & (probability <= limit)


def info_nce(anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """The InfoNCE loss of each class (U2PL, eq. 4).

    The mean over a class's anchors of -log(exp(a+ / t) / (exp(a+ / t) + sum of exp(a- / t))), where a+ and a- are the
    cosines between an anchor and its positive and negatives.

    Args:
        anchors: (C, A, D) float, A anchors of each class; only they get a gradient.
        positives: (C, D) float, one for each class.
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
    """coefficient * sum(weight * mask * loss) / sum(norm), with weight 1 for a term without weights.

    Args:
        term: the loss.
        norm: "valid": as above (paper, eq. 5 and 6); "weight_sum": divided by sum(weight * norm) (official code).

    Returns:
        A float32 scalar with a gradient, 0 where the denominator is 0.

    Raises:
        ValueError: an unknown norm.
    """
    check_name("WEIGHTING.NORM", norm, NORMS)
    factor, count = term.mask, term.norm
    if term.weight is not None:
        factor = factor * term.weight
        count = count * term.weight if norm == "weight_sum" else count
    loss = term.pixel_loss(term.logits, term.target)
    # A pixel without influence may have an infinite loss, and 0 * inf is NaN.
    total = (factor * loss).masked_fill(factor == 0, 0.0).sum()
    denominator = count.sum(dtype=torch.float32)
    return term.coefficient * (total / denominator.masked_fill(denominator == 0, torch.inf))
