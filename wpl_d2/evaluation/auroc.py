"""How well a score tells right from wrong: the area under the ROC curve, from two histograms."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 4096


def histograms(score: Tensor, kind: Tensor, mask: Tensor, kinds: int, bins: int = BINS) -> Tensor:
    """Count the scores of pixels of several kinds, such as wrong and right ones.

    Args:
        score: float in [0, 1], any shape; what lies outside is clipped.
        kind: int64 in 0..kinds - 1, same shape; anything outside of the mask.
        mask: bool, same shape; False is not counted.
        kinds: number of histograms.
        bins: of each histogram.

    Returns:
        (kinds, bins) int64; sums of such histograms are histograms.
    """
    level = (score.float().clamp(0.0, 1.0) * (bins - 1)).round().long()
    cell = torch.where(mask, kind * bins + level, kinds * bins)
    return torch.bincount(cell.flatten(), minlength=kinds * bins + 1)[: kinds * bins].view(kinds, bins)


def spread_confidence(confidence: Tensor) -> Tensor:
    """Bring probabilities to an even scale: -log(1 - p), for most of them differ only in the digits near 1.

    Args:
        confidence: float in [0, 1].

    Returns:
        float in [0, 1], rising with `confidence`; 1 where float32 cannot tell it from 1.
    """
    eps = torch.finfo(torch.float32).eps / 2
    rest = (1.0 - confidence.float()).clamp(eps, 1.0)
    return rest.log() / torch.tensor(eps, device=rest.device).log()


def confidence_of_bins(bins: int = BINS) -> NDArray[np.float64]:
    """The probability that each bin of `histograms` stands for where `spread_confidence` was counted: its inverse.

    Returns:
        (bins,) float, rising from 0.
    """
    eps = float(torch.finfo(torch.float32).eps) / 2
    return 1.0 - eps ** (np.arange(bins) / (bins - 1))


def auroc(counts: NDArray[np.int64]) -> float:
    """The probability that a right pixel scores higher than a wrong one, pixels of one bin counting half.

    Args:
        counts: (2, bins), wrong and right.

    Returns:
        in [0, 1]; NaN if all pixels are right or all are wrong.
    """
    wrong, right = counts.astype(np.float64)
    pairs = wrong.sum() * right.sum()
    if pairs == 0:
        return float("nan")
    below = np.cumsum(wrong) - wrong
    return float((right * (below + wrong / 2)).sum() / pairs)
