"""Drawing labels, weights and boxes, as (3, H, W) uint8 RGB arrays for TensorBoard."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from ..data.pixel_values import RGB, PixelLayout
from ..structures import IGNORE
from ..utils.errors import InputError

Picture = NDArray[np.uint8]
Color = Sequence[int]
_LINE = 2  # width of a box's outline in pixels
_MARGIN = 2 * _LINE  # edges farther outside of the image, which nobody sees, are clipped to this


def render(image: ArrayLike, layout: PixelLayout) -> Picture:
    """An image of any channels as colors: of those called red, green and blue, else of the first three, or gray.

    Args:
        image: (C, H, W) in 0..255.
        layout: names the channels.

    Returns:
        (3, H, W) uint8.
    """
    pixels = np.asarray(image)
    if pixels.dtype == np.uint8 and layout == RGB:
        return pixels
    places = layout.rgb or ((0, 1, 2) if len(pixels) >= 3 else (0, 0, 0))
    return pixels[list(places)].round().astype(np.uint8)


def overlay(image: ArrayLike, labels: ArrayLike, colors: Sequence[Color], opacity: float = 0.7) -> Picture:
    """Tint an image by the colors of its labels; its own colors become gray.

    Args:
        image: (3, H, W) uint8 RGB.
        labels: (H, W) integer class ids; `IGNORE` leaves the image as it is.
        colors: (r, g, b) in 0..255 of each class.
        opacity: of the label colors, 0..1.

    Returns:
        (3, H, W) uint8.
    """
    pixels, ids = np.asarray(image, np.uint8), np.asarray(labels)
    index = ids.astype(np.intp) * _TOTALS
    for channel in pixels:  # several times as fast as their sum over the first axis
        index += channel
    tints = _tints(tuple(map(tuple, colors)), opacity).take(index)
    tinted = tints.view(np.uint8).reshape(*ids.shape, 4)[..., :3].transpose(2, 0, 1)
    void = ids == IGNORE
    return np.where(void, pixels, tinted) if void.any() else tinted


_TOTALS = 3 * 255 + 1
"""Sums of a pixel's channels."""


@lru_cache(maxsize=4)
def _tints(colors: tuple[tuple[int, ...], ...], opacity: float) -> NDArray[np.uint32]:
    """The bytes r, g, b, 0 of a tinted pixel by label and sum of channels: (256 * `_TOTALS`,)."""
    table = np.zeros((IGNORE + 1, 1, 3), np.float32)
    table[: len(colors), 0] = np.asarray(colors, np.float32)
    gray = np.arange(_TOTALS, dtype=np.float32)[:, None] / 3
    tints = np.zeros((IGNORE + 1, _TOTALS, 4), np.uint8)
    tints[..., :3] = ((1 - opacity) * gray + opacity * table).round()
    return tints.reshape(-1).view(np.uint32)


def heatmap(values: ArrayLike, maximum: float = 1.0) -> Picture:
    """Draw numbers as colors from black (0) over purple and orange to light yellow (`maximum` and above).

    Args:
        values: (H, W) float.
        maximum: value of the lightest color.

    Returns:
        (3, H, W) uint8.
    """
    level = (np.clip(np.asarray(values, np.float32) / maximum, 0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[..., ::-1].transpose(2, 0, 1))


def draw_boxes(image: ArrayLike, boxes: ArrayLike, names: Sequence[str], colors: Sequence[Color]) -> Picture:
    """Draw labeled boxes, at least a pixel wide and high; boxes outside of the image or with NaN are skipped.

    Args:
        image: (3, H, W) RGB in 0..255.
        boxes: (N, 4) xyxy in pixels.
        names: labels of the N boxes.
        colors: (r, g, b) of the N boxes.

    Returns:
        (3, H, W) uint8.
    """
    canvas = to_image(image)
    draw, text = ImageDraw.Draw(canvas), font(13)
    largest = np.array((canvas.width, canvas.height) * 2)
    for box, name, color in zip(np.asarray(boxes, np.float64).reshape(-1, 4), names, colors, strict=True):
        if not ((box[:2] < largest[:2]).all() and (box[2:] > 0).all()):  # also with NaN
            continue
        x0, y0, x1, y1 = box.clip(-_MARGIN, largest + _MARGIN).tolist()
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=tuple(color), width=_LINE)
        width, height = text.getbbox(name)[2:]
        left, top = min(x0, canvas.width - width - 6), max(y0 - height - 4, 0)
        draw.rectangle((left, top, left + width + 5, top + height + 3), fill=tuple(color))
        draw.text((left + 3, top + 1), name, fill=contrast(color), font=text)
    return np.ascontiguousarray(np.asarray(canvas).transpose(2, 0, 1))


def to_image(picture: ArrayLike) -> Image.Image:
    """Convert a (3, H, W) RGB array in 0..255 to a PIL image."""
    return Image.fromarray(np.ascontiguousarray(np.asarray(picture, np.uint8).transpose(1, 2, 0)))


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load Pillow's own font, the same on every machine, `size` pixels high."""
    return ImageFont.load_default(size)


def contrast(color: Color) -> str:
    """Black or white, by name: whichever can be read on `color`."""
    red, green, blue = color
    return "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 128 else "white"


logger = logging.getLogger(__name__)


@contextmanager
def optional_picture(name: str) -> Iterator[None]:
    """Turn any error inside into a warning, so that a picture cannot end a training.

    Args:
        name: of the picture, for the warning.
    """
    try:
        yield
    except InputError as error:
        logger.warning("%s: could not be drawn: %s", name, error)
    except Exception:  # of any class
        logger.warning("%s: could not be drawn", name, exc_info=True)
