"""Test-time augmentation, around anything that maps an image batch to logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .sliding_window import Predict, to_logits, to_scores


@dataclass(frozen=True)
class PredictWithTTA:
    """A `Predict` that averages the inner one's predictions over scales and, if wanted, mirror images.

    Attributes:
        predict: the inner one.
        scales: factors of the image's height and width.
        flip: also predict on the mirror image of each scale.
        average: "probability" or "logit".
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
                # Without a name for the votes: they would live on beside the next view's.
                total = _add(total, self._votes(images, scale, flip))
        assert total is not None  # there is at least one scale
        return to_logits(total.div_(len(self.scales) * (1 + self.flip)), self.average)

    def _votes(self, images: Tensor, scale: float, flip: bool) -> Tensor:
        height, width = images.shape[-2:]
        # Smoothed before it is made smaller, as in training with INPUT.RESIZE antialias.
        view = _resize(images, (round(height * scale), round(width * scale)), antialias=True)
        logits = self.predict(view.flip(-1)).flip(-1) if flip else self.predict(view)
        return to_scores(_resize(logits, (height, width), antialias=False), self.average)


def _add(total: Tensor | None, votes: Tensor) -> Tensor:
    # A copy, because the votes may be what the inner one still holds.
    return votes.clone() if total is None else total.add_(votes)


def _resize(maps: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    size = (max(1, size[0]), max(1, size[1]))
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=antialias)
