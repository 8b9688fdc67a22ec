"""Prediction of images that are too large for memory: by windows that overlap, one batch of them at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..data import read_image
from ..data.pixel_values import RGB, PixelLayout
from ..data.windows import SIDE, Window
from ..structures import IGNORE, Detections
from .runtime_model import Prediction

MARGIN = 128
"""What is kept of a window has this many pixels around it, but for the border of the image."""
_OVERVIEW = 2048  # pixels of the longer side, at most


@dataclass(frozen=True)
class HugeImage:
    """An image file of which windows are read.

    Attributes:
        path: of the file.
        size: (height, width) in pixels.
        layout: of the pixels.
    """

    path: Path
    size: tuple[int, int]
    layout: PixelLayout = RGB

    def read(self, window: Window) -> np.ndarray:
        """The pixels (h, w, C) of a window, as of `read_image`, which raises errors."""
        return read_image(self.path, layout=self.layout, window=window)


class Part(NamedTuple):
    """What was predicted of a part of a huge image. The parts are disjoint and cover it, row by row.

    Attributes:
        window: its place.
        image: (h, w, C), as of `HugeImage.read`.
        prediction: of these pixels; the boxes in pixels of the whole image, those alone whose centers are in the part.
    """

    window: Window
    image: np.ndarray
    prediction: Prediction


def predict_parts(
    predict: Callable[[Sequence[np.ndarray]], Sequence[Prediction]], image: HugeImage, batch_size: int
) -> Iterator[Part]:
    """Predict a huge image in windows of `SIDE` pixels, of which the inner part is kept, with a progress bar.

    So every pixel is predicted with its surroundings, and nothing has to be averaged (Ronneberger et al., U-Net, 2015).

    Args:
        predict: predicts a batch of images of one size.
        image: to predict.
        batch_size: most windows at a time.

    Raises:
        UnreadableImageError: a window cannot be read.
    """
    windows = overlapping_windows(image.size)
    with tqdm(total=len(windows), desc=image.path.name, unit="window", leave=False) as progress:
        remaining = iter(windows)
        while batch := list(islice(remaining, batch_size)):
            images = [image.read(seen) for seen, _ in batch]
            for (seen, kept), pixels, prediction in zip(batch, images, predict(images), strict=True):
                yield _cut(seen, kept, pixels, prediction)
                progress.update()


def overlapping_windows(size: tuple[int, int]) -> list[tuple[Window, Window]]:
    """The windows of an image of `size` (height, width), all of one size: what is seen, and what of it is kept."""

    def spans(length: int) -> list[tuple[int, int, int, int]]:
        seen, step = min(SIDE, length), SIDE - 2 * MARGIN
        starts = range(0, length, step)
        return [(min(max(0, at - MARGIN), length - seen), seen, at, min(step, length - at)) for at in starts]

    return [
        (Window(top, left, height, width, size), Window(own_top, own_left, own_height, own_width, size))
        for (top, height, own_top, own_height), (left, width, own_left, own_width) in product(*map(spans, size))
    ]


def _cut(seen: Window, kept: Window, pixels: np.ndarray, prediction: Prediction) -> Part:
    top, left = kept.top - seen.top, kept.left - seen.left
    inner = np.s_[top : top + kept.height, left : left + kept.width]
    labels = None if prediction.labels is None else prediction.labels[inner]
    boxes = None if prediction.detections is None else _move(prediction.detections, seen, kept)
    return Part(kept, pixels[inner], Prediction(labels, boxes))


def _move(detections: Detections, seen: Window, kept: Window) -> Detections:
    boxes = detections.boxes + detections.boxes.new_tensor([seen.left, seen.top] * 2)
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2).unbind(dim=1)
    inside = (x >= kept.left) & (x < kept.left + kept.width) & (y >= kept.top) & (y < kept.top + kept.height)
    return detections._replace(boxes=boxes).select(inside)


class Overview:
    """A huge image and its labels in every n-th row and column.

    Attributes:
        image: (h, w, C), as of `HugeImage.read`.
        labels: (h, w) uint8.
    """

    def __init__(self, image: HugeImage) -> None:
        """Begin with nothing of an image."""
        self._step = math.ceil(max(image.size) / _OVERVIEW)
        height, width = (math.ceil(length / self._step) for length in image.size)
        dtype = np.uint8 if image.layout == RGB else np.float32
        self.image = np.zeros((height, width, len(image.layout.channels)), dtype)
        self.labels = np.full((height, width), IGNORE, dtype=np.uint8)

    def add(self, window: Window, image: np.ndarray, labels: np.ndarray) -> None:
        """Add a part: its place, pixels (h, w, C) and labels (h, w)."""
        step = self._step
        rows, columns = (slice(-first % step, None, step) for first in (window.top, window.left))
        top, left = math.ceil(window.top / step), math.ceil(window.left / step)
        chosen = labels[rows, columns]
        place = np.s_[top : top + chosen.shape[0], left : left + chosen.shape[1]]
        self.image[place], self.labels[place] = image[rows, columns], chosen
