"""Counts by class, the area under the ROC curve and the calibration curve, all from histograms of fixed size."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def count_by_class(
    labels: Tensor, right: Tensor, mask: Tensor, num_classes: int, weight: Tensor | None = None
) -> Tensor:
    """How many of what is labeled as each class are wrong and right, or how much weight they have.

    Args:
        labels: int64 class ids, any shape; others than those of the classes only outside of the mask.
        right: bool, same shape.
        mask: bool, same shape; False is not counted.
        num_classes: number of classes, C.
        weight: float, same shape, added up in place of ones.

    Returns:
        (C, 2): wrong and right.
    """
    size = 2 * num_classes
    cell = torch.where(mask, labels * 2 + right, size)
    flat = None if weight is None else weight.flatten()
    return torch.bincount(cell.flatten(), flat, minlength=size + 1)[:size].view(-1, 2)


def percent(part: float, whole: float) -> float:
    """`part` of `whole` in percent; NaN of nothing."""
    return 100 * float(part) / float(whole) if whole else float("nan")


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


CONFIDENCES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
"""Where the groups of the curve begin: narrow near 1, where most labels are."""


def calibration_results(counts: NDArray[np.int64], part: str = "") -> dict[str, float]:
    """The calibration curve and its error (Guo et al., ICML 2017) of confidences counted in fine bins.

    Args:
        counts: (2, bins) `histograms` of `spread_confidence`, wrong and right labels.
        part: end of the names.

    Returns:
        Percent: `calibration-error`, the mean distance of a label's group from the diagonal, and for the labels with a
        confidence from each of CONFIDENCES on to the next one `confidence`, `accuracy` (both means) and `coverage`
        (their share of all labels) as `calibration-FIGURE@CONFIDENCE`; `part` follows FIGURE. NaN of no labels.
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
