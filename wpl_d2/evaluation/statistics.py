"""Counts by class, area under the ROC curve and calibration curve, from histograms of fixed size."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def count_by_class(
    labels: Tensor, right: Tensor, mask: Tensor, num_classes: int, weight: Tensor | None = None
) -> Tensor:
    """The number, or the summed weight, of wrong and of right labels of each class.

    Args:
        labels: int64 class ids, any shape; other values outside of the mask only.
        right: bool, same shape.
        mask: bool, same shape; where it is False nothing is counted.
        num_classes: C.
        weight: float, same shape, summed in place of counting.

    Returns:
        (C, 2): wrong and right.
    """
    size = 2 * num_classes
    cell = torch.where(mask, labels * 2 + right, size)
    flat = None if weight is None else weight.flatten()
    return torch.bincount(cell.flatten(), flat, minlength=size + 1)[:size].view(-1, 2)


def percent(part: float, whole: float) -> float:
    """`part` of `whole` in percent; NaN if `whole` is 0."""
    return 100 * float(part) / float(whole) if whole else float("nan")


BINS = 4096


def histograms(score: Tensor, kind: Tensor, mask: Tensor, kinds: int, bins: int = BINS) -> Tensor:
    """Count the scores of pixels of several kinds, such as wrong and right ones.

    Args:
        score: float, any shape, clipped to [0, 1].
        kind: int64 in 0..kinds - 1, same shape; any value outside of the mask.
        mask: bool, same shape; where it is False nothing is counted.
        kinds: number of histograms.
        bins: of each histogram.

    Returns:
        (kinds, bins) int64, which may be summed over images.
    """
    level = (score.float().clamp(0.0, 1.0) * (bins - 1)).round().long()
    cell = torch.where(mask, kind * bins + level, kinds * bins)
    return torch.bincount(cell.flatten(), minlength=kinds * bins + 1)[: kinds * bins].view(kinds, bins)


def spread_confidence(confidence: Tensor) -> Tensor:
    """Spread probabilities, of which most are close to 1, by -log(1 - p), scaled to [0, 1].

    Args:
        confidence: float in [0, 1].

    Returns:
        float in [0, 1], increasing with `confidence`; 1 where float32 cannot tell it from 1.
    """
    eps = torch.finfo(torch.float32).eps / 2
    rest = (1.0 - confidence.float()).clamp(eps, 1.0)
    return rest.log() / torch.tensor(eps, device=rest.device).log()


def confidence_of_bins(bins: int = BINS) -> NDArray[np.float64]:
    """The confidence that each bin of a histogram of `spread_confidence` stands for.

    Returns:
        (bins,) float, increasing from 0.
    """
    eps = float(torch.finfo(torch.float32).eps) / 2
    return 1.0 - eps ** (np.arange(bins) / (bins - 1))


def auroc(counts: NDArray[np.int64]) -> float:
    """The probability that a right pixel scores higher than a wrong one; pairs in the same bin count half.

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


CONFIDENCES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
"""The lower ends of the curve's bins, narrow near 1, where most labels are."""


def calibration_results(counts: NDArray[np.int64], part: str = "") -> dict[str, float]:
    """The calibration curve and its error (Guo et al., ICML 2017) of confidences counted in fine bins.

    Args:
        counts: (2, bins) `histograms` of `spread_confidence`, wrong and right labels.
        part: end of the names.

    Returns:
        Percent: `calibration-error`, the expected calibration error, and for the labels between one of CONFIDENCES and
        the next their mean `confidence`, `accuracy` and `coverage` (the ratio of all labels) as
        `calibration-FIGURE@CONFIDENCE`; `part` follows FIGURE. NaN without labels.
    """
    confidences = confidence_of_bins(counts.shape[1])
    group = np.searchsorted(CONFIDENCES, confidences, side="right") - 1
    labels, total = counts.sum(axis=0), counts.sum()
    results, error = {}, 0.0
    for index, lowest in enumerate(CONFIDENCES):
        chosen = group == index
        here, right, sure = labels[chosen].sum(), counts[1][chosen].sum(), labels[chosen] @ confidences[chosen]
        error += abs(float(right) - float(sure))
        for figure, value in (("confidence", percent(sure, here)), ("accuracy", percent(right, here))):
            results[f"calibration-{figure}{part}@{lowest:g}"] = value
        results[f"calibration-coverage{part}@{lowest:g}"] = percent(here, total)
    return {f"calibration-error{part}": percent(error, total)} | results
