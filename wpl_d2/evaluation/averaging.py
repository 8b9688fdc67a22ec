"""How several predictions of one pixel become one."""

from __future__ import annotations

from torch import Tensor

AVERAGES = ("probability", "logit")


def to_votes(logits: Tensor, average: str) -> Tensor:
    """What is summed over windows, flips and scales.

    Args:
        logits: (N, C, H, W) float.
        average: one of `AVERAGES`.

    Returns:
        (N, C, H, W) float32 probabilities or logits.
    """
    return logits.float().softmax(dim=1) if average == "probability" else logits.float()


def to_logits(mean: Tensor, average: str) -> Tensor:
    """Mean votes as logits, in place: those whose softmax is the mean probability, so that none downstream need ask.

    Args:
        mean: (N, C, H, W) float32 means of `to_votes`; overwritten.
        average: one of `AVERAGES`.
    """
    return mean.clamp_(min=1e-30).log_() if average == "probability" else mean
