"""Test-time augmentation (TTA), and another size, for anything that maps an image batch to logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .sliding_window import Predict, to_logits, to_scores


@dataclass(frozen=True)
class PredictWithTTA:
    """A `Predict` that averages another's predictions over scales and, optionally, mirror images.

    Attributes:
        predict: the other.
        scales: factors of the image's height and width.
        flip: whether to predict the mirror image at each scale too.
        average: one of `AVERAGES`.
    """

    predict: Predict
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    average: str = "probability"

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) float32 of images (N, 3, H, W)."""
        total: Tensor | None = None
        for scale in self.scales:
            for flip in (False, True)[: 1 + self.flip]:
                # Not bound to a name, which would keep these scores alive beside the next view's.
                total = _add(total, self._scores(images, scale, flip))
        assert total is not None  # there is at least one scale
        return to_logits(total.div_(len(self.scales) * (1 + self.flip)), self.average)

    def _scores(self, images: Tensor, scale: float, flip: bool) -> Tensor:
        height, width = images.shape[-2:]
        # With antialiasing, as in training with INPUT.RESIZE antialias.
        view = _resize(images, (round(height * scale), round(width * scale)), antialias=True)
        logits = self.predict(view.flip(-1)).flip(-1) if flip else self.predict(view)
        return to_scores(_resize(logits, (height, width), antialias=False), self.average)


@dataclass(frozen=True)
class PredictResized:
    """A `Predict` that applies another to images of a fixed size.

    Attributes:
        predict: the other.
        shorter_side: length in pixels to which the images' shorter side is resized; logits are resized back.
    """

    predict: Predict
    shorter_side: int

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of images (N, 3, H, W)."""
        height, width = images.shape[-2:]
        factor = self.shorter_side / min(height, width)
        view = _resize(images, (round(height * factor), round(width * factor)), antialias=True)
        return _resize(self.predict(view), (height, width), antialias=False)


def _add(total: Tensor | None, scores: Tensor) -> Tensor:
    # A copy, since `predict` may still hold the scores.
    return scores.clone() if total is None else total.add_(scores)


def _resize(maps: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    size = (max(1, size[0]), max(1, size[1]))
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=antialias)
