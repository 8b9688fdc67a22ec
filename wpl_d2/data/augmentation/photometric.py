"""The strong view: colour jitter, greyscale and blur of the weak view's pixels (UniMatch's recipe)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torchvision.transforms import v2


class StrongView:
    """Change the colours of an image; its geometry stays. Draws from torch's global generator."""

    def __init__(
        self,
        jitter: Sequence[float],
        jitter_prob: float,
        gray_prob: float,
        blur_prob: float,
        blur_sigma: Sequence[float],
    ) -> None:
        """Prepare the augmentations.

        Args:
            jitter: ranges of brightness, contrast, saturation and hue.
            jitter_prob: probability of the jitter.
            gray_prob: probability of greyscale.
            blur_prob: probability of the blur.
            blur_sigma: smallest and largest standard deviation of the blur in pixels.
        """
        low, high = blur_sigma
        kernel = 2 * math.ceil(3 * high) + 1
        self.transform = v2.Compose(
            [
                v2.RandomApply([v2.ColorJitter(*jitter)], p=jitter_prob),
                v2.RandomGrayscale(p=gray_prob),
                v2.RandomApply([v2.GaussianBlur(kernel, sigma=(low, high))], p=blur_prob),
            ]
        )

    def __call__(self, image: Tensor) -> Tensor:
        """A strong view of `image` (3, H, W) uint8 RGB, of the same shape and type."""
        return self.transform(image)
