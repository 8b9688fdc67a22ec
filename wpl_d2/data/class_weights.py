"""Weights of the classes in the labeled loss (FRAMEWORK.CLASS_WEIGHTS)."""

from __future__ import annotations

import numpy as np
from detectron2.config import CfgNode

from ..utils.errors import InputError
from .loader import labeled_records
from .verified_files import label_counts


def build_class_weights(cfg: CfgNode) -> list[float] | None:
    """The weight of each class in a config's training; None if all are 1.

    Raises:
        InputError: a mask cannot be read, or the list is not one of a weight for each class.
    """
    keys, classes = cfg.FRAMEWORK.CLASS_WEIGHTS, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if keys.KIND == "none":
        return None
    if keys.KIND != "list":
        return balance_classes(label_counts(cfg, labeled_records(cfg)), keys.KIND).tolist()
    if len(keys.VALUES) != classes:
        raise InputError(
            f"FRAMEWORK.CLASS_WEIGHTS.VALUES: {len(keys.VALUES)} weights for {classes} classes; give one for each"
        )
    return [float(value) for value in keys.VALUES]


def balance_classes(counts: np.ndarray, kind: str) -> np.ndarray:
    """Weights that make up for the different sizes of classes.

    Args:
        counts: (N, C + 1) pixels of N masks by label, those of no class last.
        kind: "inverse": inverse to a class's pixels, so that all classes weigh the same and the mean over pixels is 1;
            "median": the median frequency of all classes over that of the class, where a frequency is the class's share
            of the images that show it (Eigen and Fergus, ICCV 2015).

    Returns:
        (C,) float64; 1 for a class without pixels.
    """
    pixels = counts[:, :-1]
    size = pixels.sum(axis=0)
    found = size > 0
    if kind == "inverse":
        frequency, common = size.astype(np.float64), size.sum() / found.sum()
    else:
        frequency = size / np.maximum(1, counts.sum(axis=1) @ (pixels > 0))
        common = np.median(frequency[found])
    return np.divide(common, frequency, out=np.ones(len(size)), where=found)
