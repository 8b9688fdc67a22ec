"""How far the classes of a data set can be told apart by their color alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from .image_io import UnreadableImageError, read_record

_MIN_PIXELS = 64  # of a class in an image, for a color


def class_colors(record: Mapping[str, Any], mask: np.ndarray, num_classes: int) -> np.ndarray:
    """The mean color of each class in an image, without its lightness.

    Args:
        record: dataset dict of an image in red, green and blue.
        mask: (H, W) class ids of it.
        num_classes: C; other ids are ignored.

    Returns:
        (C, 2) float, a and b of CIELAB in OpenCV's 0..255; NaN for a class of under 64 pixels, and for all classes if
        the image cannot be read or is not of the mask's size, for which a training has its own rules.
    """
    try:
        image = read_record(record)
    except UnreadableImageError:
        return np.full((num_classes, 2), np.nan)
    if image.shape[:2] != mask.shape:
        return np.full((num_classes, 2), np.nan)
    known = mask < num_classes
    ids = mask[known]
    count = np.bincount(ids, minlength=num_classes)
    channels = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., 1:][known]
    total = np.stack([np.bincount(ids, channel, num_classes) for channel in channels.T], axis=1)
    return np.where(count[:, None] >= _MIN_PIXELS, total / np.maximum(count, 1)[:, None], np.nan)


def color_kappa(colors: np.ndarray) -> float:
    """How well the nearest mean color of the other images names a class: 1 always, 0 as often as chance.

    Args:
        colors: (images, C, 2) of `class_colors`.

    Returns:
        (accuracy - chance) / (1 - chance) with the accuracy averaged over the classes that are in two images or more;
        0 with fewer than two such classes.
    """
    count = (~np.isnan(colors[..., 0])).sum(axis=0)
    colors = colors[:, count >= 2]
    classes = colors.shape[1]
    if classes < 2:
        return 0.0
    image, own = np.nonzero(~np.isnan(colors[..., 0]))
    color, each = colors[image, own][:, None], np.arange(classes) == own[:, None]
    # A color is compared with means that do not hold it.
    means = (np.nansum(colors, axis=0) - each[..., None] * color) / (count[count >= 2] - each)[..., None]
    right = np.linalg.norm(color - means, axis=-1).argmin(axis=1) == own
    accuracy = np.mean([right[own == c].mean() for c in range(classes)])
    return float((accuracy - 1 / classes) / (1 - 1 / classes))
