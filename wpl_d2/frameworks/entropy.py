"""How sure a prediction is of a pixel, and where a share of a batch's pixels lies."""

from __future__ import annotations

import torch
from torch import Tensor


def entropy(logits: Tensor) -> Tensor:
    """The entropy in nats of each pixel's class probabilities: logits (B, C, H, W) -> (B, H, W) float32."""
    log_probability = logits.float().log_softmax(dim=1)
    return -(log_probability.exp() * log_probability).sum(dim=1)


def percentiles(values: Tensor, mask: Tensor, *percents: float) -> list[Tensor]:
    """Percentiles of the values where a mask is True, interpolated between neighbours as `numpy.percentile` does.

    `torch.quantile` takes no mask, and no more than 2^24 values.

    Args:
        values: float, of any shape.
        mask: bool, of the same shape.
        percents: in [0, 100].

    Returns:
        one scalar tensor each; NaN where the mask is False everywhere, which no comparison is True with.
    """
    ordered = values.masked_fill(~mask, torch.inf).flatten().sort().values
    # In float64: a place among millions has a fraction.
    last = (mask.sum() - 1).clamp(min=0).double()
    found = []
    for percent in percents:
        place = last * (percent / 100)
        low, high = ordered.gather(0, torch.stack([place.floor(), place.ceil()]).long())
        found.append(low + (high - low) * place.frac())
    return found
