"""What an evaluation keeps of each image: enough to tell how sure a figure is, and which images fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.file_cache import load_arrays, write_arrays

FILE = "image_counts.npz"
"""The name of the file in `OUTPUT_DIR/inference/SET/MODEL`."""

Figures = NDArray[np.float64]


@dataclass(frozen=True)
class ImageCounts:
    """Pixel counts of the images of a data set.

    Attributes:
        files: the `image_name` of the N images, sorted.
        classes: the C names.
        counts: (N, 3, C) int64, of each class the pixels that are rightly predicted, true, and predicted.
        confusion: (C, C) int64 over all images, row = true class.
    """

    files: Sequence[str]
    classes: Sequence[str]
    counts: NDArray[np.int64]
    confusion: NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Write them; the folder is made where it is missing.

        Raises:
            InputError: the file cannot be written.
        """
        names = {"files": np.array(self.files, dtype=np.str_), "classes": np.array(self.classes, dtype=np.str_)}
        write_arrays(path, {**names, "counts": self.counts, "confusion": self.confusion})

    @classmethod
    def load(cls, path: Path) -> ImageCounts | None:
        """Read them; None if the file is missing or damaged, so that the evaluation must be repeated."""
        arrays = load_arrays(path, (field.name for field in fields(cls)))
        if arrays is None:
            return None
        return cls(arrays["files"].tolist(), arrays["classes"].tolist(), arrays["counts"], arrays["confusion"])

    @property
    def scores(self) -> Figures:
        """(N,) mean IoU in percent over the classes that an image shows or that are seen in it; NaN without any."""
        iou = intersection_over_union(self.counts, self.counts[:, 1] + self.counts[:, 2] > 0)
        shown = np.isfinite(iou)
        return np.where(shown, iou, 0).sum(axis=1) / np.where(shown.any(axis=1), shown.sum(axis=1), np.nan)

    def resample(self, rounds: int = 1000, seed: int = 0) -> Figures:
        """Sums over images that are drawn with replacement, as many as there are (bootstrap; Efron, 1979).

        Counts of the same images by two models are drawn alike, so that their figures are paired.

        Args:
            rounds: R, the number of draws.
            seed: of the draws.

        Returns:
            (R, 3, C) float: as `counts`, summed.
        """
        images = len(self.files)
        drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=rounds)
        sums = drawn.astype(np.float64) @ self.counts.reshape(images, -1).astype(np.float64)
        return sums.reshape(rounds, *self.counts.shape[1:])


def intersection_over_union(counts: NDArray, judged: NDArray[np.bool_] | None = None) -> Figures:
    """IoU of each class in percent; NaN where it is not judged.

    Args:
        counts: (..., 3, C) pixels rightly predicted, true, and predicted.
        judged: (..., C); by default where there are true pixels, as `sem_seg_metrics` has it.
    """
    right, true, predicted = np.moveaxis(counts, -2, 0)
    return _percent(right, np.where(true > 0 if judged is None else judged, true + predicted - right, 0))


def class_figures(counts: NDArray) -> dict[str, Figures]:
    """Percent by name ("IoU", "Dice", "precision", "recall"), each (..., C); NaN where there is nothing to judge.

    Args:
        counts: (..., 3, C) pixels rightly predicted, true, and predicted.
    """
    right, true, predicted = np.moveaxis(counts, -2, 0)
    return {
        "IoU": intersection_over_union(counts),
        "Dice": _percent(2 * right, np.where(true > 0, true + predicted, 0)),
        "precision": _percent(right, predicted),
        "recall": _percent(right, true),
    }


def mean_iou(counts: NDArray) -> Figures:
    """mIoU in percent of counts (..., 3, C), over the classes that occur: of the shape that remains."""
    iou = intersection_over_union(counts)
    judged = np.isfinite(iou)
    return np.where(judged, iou, 0).sum(axis=-1) / np.where(judged.any(axis=-1), judged.sum(axis=-1), np.nan)


def interval(values: NDArray, level: float = 0.95) -> tuple[float, float]:
    """The range that holds the middle `level` of values (R,)."""
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _percent(part: NDArray, whole: NDArray) -> Figures:
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * part / np.where(whole > 0, whole, np.nan)
