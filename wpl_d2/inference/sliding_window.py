"""Prediction by overlapping windows, of a center crop, or with padding, and averages of predictions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

Predict = Callable[[Tensor], Tensor]
"""Images (N, 3, H, W) float in 0..255 -> logits (N, C, H, W): a model, an exported file, or a wrapper of either."""

Window = tuple[slice, slice]
"""Rows and columns of an image."""


@dataclass(frozen=True)
class SlidingWindow:
    """A `Predict` that averages another's predictions over overlapping windows, as the hosts' evaluation does.

    Beside the result it holds the logits of one batch of windows only.

    Attributes:
        predict: the other; called with up to `batch` windows of one size, of each image.
        crop: (height, width) of a window.
        stride: (vertical, horizontal) distance of windows.
        border: see `window_spans`. With "shift", images smaller than a window are padded to its size.
        average: one of `AVERAGES`.
        batch: most windows at a time.
        fill: color of the padding, in 0..255.
    """

    predict: Predict
    crop: tuple[int, int]
    stride: tuple[int, int]
    border: str = "shift"
    average: str = "probability"
    batch: int = 1
    fill: Sequence[float] = (0.0, 0.0, 0.0)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) float32 of images (N, 3, H, W)."""
        if self.border == "shift":
            return predict_padded(self._slide, images, self.crop, self.fill)
        return self._slide(images)

    def _slide(self, images: Tensor) -> Tensor:
        axes = zip(images.shape[-2:], self.crop, self.stride, strict=True)
        rows, columns = (window_spans(length, crop, stride, self.border) for length, crop, stride in axes)
        total: Tensor | None = None
        for windows in _batches(product(rows, columns), self.batch):
            total = self._add(total, images, windows)
        assert total is not None  # there is at least one window
        total /= _coverage(rows, images.shape[-2], total)[:, None] * _coverage(columns, images.shape[-1], total)
        return to_logits(total, self.average)

    def _add(self, total: Tensor | None, images: Tensor, windows: list[Window]) -> Tensor:
        scores = to_scores(self.predict(torch.cat([images[(..., *window)] for window in windows])), self.average)
        if total is None:
            total = scores.new_zeros(len(images), scores.shape[1], *images.shape[-2:])
        for window, of_window in zip(windows, scores.split(len(images)), strict=True):
            total[(..., *window)] += of_window
        return total


@dataclass(frozen=True)
class CenterCrop:
    """A `Predict` that applies another to the center of images; elsewhere all logits are 0.

    Attributes:
        predict: the other.
        crop: (height, width) of the center; smaller images are padded to it.
        fill: color of the padding, in 0..255.
    """

    predict: Predict
    crop: tuple[int, int]
    fill: Sequence[float] = (0.0, 0.0, 0.0)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of images (N, 3, H, W)."""
        region = center_window(images.shape[-2:], self.crop)
        logits = predict_padded(self.predict, images[(..., *region)], self.crop, self.fill)
        whole = logits.new_zeros(*logits.shape[:2], *images.shape[-2:])
        whole[(..., *region)] = logits
        return whole


def window_spans(length: int, crop: int, stride: int, border: str) -> list[slice]:
    """Place windows along one axis.

    Args:
        length: of the image, in pixels; with "shift" at least `crop`.
        crop: length of a window.
        stride: distance of windows, at most `crop`.
        border: "truncate": windows start at every multiple of the stride and end at the border (UniMatch, AugSeg);
            "shift": as few windows as needed, the last one moved inside (U2PL, AEL).
    """
    if border == "truncate":
        return [slice(start, min(start + crop, length)) for start in range(0, length, stride)]
    starts = (min(start, length - crop) for start in range(0, length - crop + stride, stride))
    return [slice(start, start + crop) for start in starts]


def center_window(size: Sequence[int], crop: Sequence[int]) -> Window:
    """The window at the center of an image.

    Args:
        size: (height, width) of the image.
        crop: (height, width) of the window; reduced to `size`.
    """
    starts = (max(0, (length - part) // 2) for length, part in zip(size, crop, strict=True))
    rows, columns = (
        slice(start, start + min(part, length)) for start, part, length in zip(starts, crop, size, strict=True)
    )
    return rows, columns


def predict_padded(predict: Predict, images: Tensor, size: tuple[int, int], fill: Sequence[float]) -> Tensor:
    """Predict images padded by `pad_to`, and crop the logits back to the images' size."""
    padded, window = pad_to(images, size, fill)
    return predict(padded)[(..., *window)]


def pad_to(images: Tensor, size: tuple[int, int], fill: Sequence[float]) -> tuple[Tensor, Window]:
    """Pad images on all sides to at least `size`.

    Args:
        images: (N, 3, H, W) float.
        size: least (height, width) of the result.
        fill: color of the padding.

    Returns:
        the padded images, or the images themselves if they are large enough, and the window that holds them.
    """
    height, width = images.shape[-2:]
    canvas = (max(height, size[0]), max(width, size[1]))
    window = center_window(canvas, (height, width))
    if canvas == (height, width):
        return images, window
    padded = images.new_tensor(fill).view(1, -1, 1, 1).repeat(len(images), 1, *canvas)
    padded[(..., *window)] = images
    return padded, window


def _batches(windows: Iterable[Window], batch: int) -> Iterator[list[Window]]:
    """Batches of up to `batch` windows of one size."""
    by_size: defaultdict[tuple[int, ...], list[Window]] = defaultdict(list)
    for window in windows:
        by_size[tuple(span.stop - span.start for span in window)].append(window)
    for group in by_size.values():
        for first in range(0, len(group), batch):
            yield group[first : first + batch]


def _coverage(spans: list[slice], length: int, like: Tensor) -> Tensor:
    """The number of spans over each pixel of an axis."""
    count = torch.zeros(length, dtype=like.dtype)
    for span in spans:
        count[span] += 1
    return count.to(like.device)


def to_scores(logits: Tensor, average: str) -> Tensor:
    """Convert logits to the quantity that is averaged.

    Args:
        logits: (N, C, H, W) float.
        average: as TEST.INFERENCE.AVERAGE.

    Returns:
        (N, C, H, W) float32 probabilities or logits.
    """
    return logits.float().softmax(dim=1) if average == "probability" else logits.float()


def to_logits(mean: Tensor, average: str) -> Tensor:
    """Convert mean scores back to logits, in place: their softmax is the mean probability.

    Args:
        mean: (N, C, H, W) float32 means of `to_scores`; overwritten.
        average: as TEST.INFERENCE.AVERAGE.
    """
    return mean.clamp_(min=1e-30).log_() if average == "probability" else mean
