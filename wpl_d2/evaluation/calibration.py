"""Whether a confidence is the share of labels that are right: the calibration curve, from two histograms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .auroc import confidence_of_bins
from .counts import percent

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
