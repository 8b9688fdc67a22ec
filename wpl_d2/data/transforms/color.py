"""Changes of an image's colors, (H, W, 3) uint8 RGB, by look-up tables and OpenCV.

Each is the operation of that name in torchvision, but for what eight bits round: at most a gray level where values are
scaled, and three where hues turn, which happens in eight bits of hue, saturation and value, as in PIL.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageOps

Operation = Callable[[np.ndarray, float], np.ndarray]
"""A function below: an image (H, W, 3) uint8 and a value to an image. `color_batch` has them for other images."""

Operations = list[tuple[Operation, float]]
"""What is done to an image, in this order, each with its value."""

_GRAY = np.array([0.299, 0.587, 0.114])
_LEVELS = np.arange(256)
_DOWN = np.full(3, -0.5)  # OpenCV rounds, torchvision and PIL cut off


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply by `factor`."""
    return cv2.LUT(image, _table(_LEVELS * factor))


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the distance to the mean gray value by `factor`."""
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return cv2.LUT(image, _table(factor * _LEVELS + (1 - factor) * mean))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the distance to the pixel's own gray value by `factor`."""
    mix = factor * np.eye(3) + (1 - factor) * _GRAY
    return cv2.transform(image, np.column_stack([mix, _DOWN]))


def adjust_hue(image: np.ndarray, turn: float) -> np.ndarray:
    """Turn all hues by a share of the circle, -0.5 to 0.5."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(turn * 256) % 256)  # the circle has 256 steps: it wraps by itself
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def to_grayscale(image: np.ndarray, _: float = 0.0) -> np.ndarray:
    """Give all channels the gray value."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def gaussian_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur with a standard deviation of `sigma` pixels, by a kernel of three of them to either side."""
    side = 2 * math.ceil(3 * sigma) + 1
    return cv2.GaussianBlur(image, (side, side), sigma)


def adjust_sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the distance to a smoothed image by `factor`; the outermost pixels stay."""
    smooth = image.copy()
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth[1:-1, 1:-1] = cv2.filter2D(image, -1, kernel)[1:-1, 1:-1]
    return cv2.addWeighted(image, factor, smooth, 1 - factor, _DOWN[0])


def autocontrast(image: np.ndarray, _: float = 0.0) -> np.ndarray:
    """Stretch each channel to 0..255."""
    return _by_pil(ImageOps.autocontrast, image)


def equalize(image: np.ndarray, _: float = 0.0) -> np.ndarray:
    """Make each channel's histogram flat."""
    return _by_pil(ImageOps.equalize, image)


def posterize(image: np.ndarray, bits: float) -> np.ndarray:
    """Keep the first `bits` (rounded down) of each value."""
    return _by_pil(ImageOps.posterize, image, int(bits))


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """Invert the values from `threshold` (rounded down) on."""
    return _by_pil(ImageOps.solarize, image, int(threshold))


def identity(image: np.ndarray, _: float = 0.0) -> np.ndarray:
    """Change nothing."""
    return image


def _table(values: np.ndarray) -> np.ndarray:
    """What the levels 0..255 become."""
    return values.clip(0, 255).astype(np.uint8)


def _by_pil(operation: Callable[..., Image.Image], image: np.ndarray, *values: int) -> np.ndarray:
    return np.asarray(operation(Image.fromarray(image), *values))
