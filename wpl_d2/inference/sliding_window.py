"""Prediction by windows that overlap, by a centre crop, or of the padded whole; averages of predictions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

Predict = Callable[[Tensor], Tensor]
"""Images (N, 3, H, W) float in 0..255 -> logits (N, C, H, W): a model, an exported file, or one of these around it."""

Window = tuple[slice, slice]
"""Rows and columns of an image."""

BORDERS = ("shift", "truncate")


@dataclass(frozen=True)
class SlidingWindow:
    """A `Predict` that shows the inner one overlapping windows and averages (methods of the hosts, evaluation).

    Beside the result it holds the logits of one batch of windows, never those of all.

    Attributes:
        predict: the inner one; it gets `batch` windows of one size at a time, or fewer, of each image.
        crop: (height, width) of a window.
        stride: from window to window, down and to the right.
        border: the rule of `window_spans`. With "shift" every window has the full size, since a smaller image is
            padded to it.
        average: "probability" or "logit".
        batch: number of windows.
        fill: colour of the padding, in 0..255.
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
        total /= _cover(rows, images.shape[-2], total)[:, None] * _cover(columns, images.shape[-1], total)
        return to_logits(total, self.average)

    def _add(self, total: Tensor | None, images: Tensor, windows: list[Window]) -> Tensor:
        votes = to_scores(self.predict(torch.cat([images[(..., *window)] for window in windows])), self.average)
        if total is None:
            total = votes.new_zeros(len(images), votes.shape[1], *images.shape[-2:])
        for window, own in zip(windows, votes.split(len(images)), strict=True):
            total[(..., *window)] += own
        return total


@dataclass(frozen=True)
class CentreCrop:
    """A `Predict` that shows the inner one the centre of the image alone; elsewhere all logits are 0.

    Attributes:
        predict: the inner one.
        crop: (height, width) of the centre; a smaller image is padded to it.
        fill: colour of the padding, in 0..255.
    """

    predict: Predict
    crop: tuple[int, int]
    fill: Sequence[float] = (0.0, 0.0, 0.0)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of images (N, 3, H, W)."""
        region = centre(images.shape[-2:], self.crop)
        logits = predict_padded(self.predict, images[(..., *region)], self.crop, self.fill)
        whole = logits.new_zeros(*logits.shape[:2], *images.shape[-2:])
        whole[(..., *region)] = logits
        return whole


def window_spans(length: int, crop: int, stride: int, border: str) -> list[slice]:
    """Where the windows lie along one axis.

    Args:
        length: of the image, in pixels; for "shift" at least `crop`.
        crop: of a window.
        stride: from window to window, at most `crop`.
        border: "truncate": windows begin at every multiple of the stride and are cut off at the border (UniMatch,
            AugSeg); "shift": just enough windows, the last one moved inside (U2PL, AEL).
    """
    if border == "truncate":
        return [slice(start, min(start + crop, length)) for start in range(0, length, stride)]
    starts = (min(start, length - crop) for start in range(0, length - crop + stride, stride))
    return [slice(start, start + crop) for start in starts]


def centre(size: Sequence[int], crop: Sequence[int]) -> Window:
    """The middle of an image.

    Args:
        size: (height, width) of the image.
        crop: (height, width) of the part; all of an axis that is shorter.
    """
    starts = (max(0, (length - part) // 2) for length, part in zip(size, crop, strict=True))
    rows, columns = (
        slice(start, start + min(part, length)) for start, part, length in zip(starts, crop, size, strict=True)
    )
    return rows, columns


def predict_padded(predict: Predict, images: Tensor, size: tuple[int, int], fill: Sequence[float]) -> Tensor:
    """Predict on images centred on a canvas of at least `size`; the logits are cut back. Arguments as of `pad_to`."""
    padded, window = pad_to(images, size, fill)
    return predict(padded)[(..., *window)]


def pad_to(images: Tensor, size: tuple[int, int], fill: Sequence[float]) -> tuple[Tensor, Window]:
    """Centre images on a canvas.

    Args:
        images: (N, 3, H, W) float.
        size: least (height, width) of the canvas.
        fill: its colour.

    Returns:
        The canvas, which is the images themselves where they are large enough, and where on it they are.
    """
    height, width = images.shape[-2:]
    canvas = (max(height, size[0]), max(width, size[1]))
    window = centre(canvas, (height, width))
    if canvas == (height, width):
        return images, window
    padded = images.new_tensor(fill).view(1, -1, 1, 1).repeat(len(images), 1, *canvas)
    padded[(..., *window)] = images
    return padded, window


def _batches(windows: Iterable[Window], batch: int) -> Iterator[list[Window]]:
    """At most `batch` windows of one size at a time."""
    by_size: defaultdict[tuple[int, ...], list[Window]] = defaultdict(list)
    for window in windows:
        by_size[tuple(span.stop - span.start for span in window)].append(window)
    for group in by_size.values():
        for first in range(0, len(group), batch):
            yield group[first : first + batch]


def _cover(spans: list[slice], length: int, like: Tensor) -> Tensor:
    """How many of the spans hold each pixel of an axis."""
    count = torch.zeros(length, dtype=like.dtype)
    for span in spans:
        count[span] += 1
    return count.to(like.device)


AVERAGES = ("probability", "logit")


def to_scores(logits: Tensor, average: str) -> Tensor:
    """What is summed over windows, flips and scales.

    Args:
        logits: (N, C, H, W) float.
        average: one of `AVERAGES`.

    Returns:
        (N, C, H, W) float32 probabilities or logits.
    """
    return logits.float().softmax(dim=1) if average == "probability" else logits.float()


def to_logits(mean: Tensor, average: str) -> Tensor:
    """Mean votes as logits, in place: those whose softmax is the mean probability, so that none downstream need ask.

    Args:
        mean: (N, C, H, W) float32 means of `to_scores`; overwritten.
        average: one of `AVERAGES`.
    """
    return mean.clamp_(min=1e-30).log_() if average == "probability" else mean
