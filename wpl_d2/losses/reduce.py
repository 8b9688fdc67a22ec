"""The one place where a loss of pixels becomes a number."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check_name
from ..structures import LossTerm

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
