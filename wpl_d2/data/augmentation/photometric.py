"""The strong view: other colours of the weak view's pixels, by UniMatch's recipe or by AugSeg's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F


class StrongView:
    """Colour jitter, greyscale and blur (UniMatch). Draws from torch's global generator."""

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
        self.transform = v2.Compose(
            [
                v2.RandomApply([v2.ColorJitter(*jitter)], p=jitter_prob),
                v2.RandomGrayscale(p=gray_prob),
                v2.RandomApply([v2.GaussianBlur(_kernel(blur_sigma), sigma=tuple(blur_sigma))], p=blur_prob),
            ]
        )

    def __call__(self, image: Tensor) -> Tensor:
        """A strong view of `image` (3, H, W) uint8 RGB, of the same shape and type."""
        return self.transform(image)


class IntensityView:
    """A random number of random operations, each of a random intensity (AugSeg, Zhao et al., CVPR 2023, section 3.2).

    Draws from torch's global generator. Operations may come more than once; one of them changes nothing.
    """

    def __init__(self, max_operations: int, blur_sigma: Sequence[float]) -> None:
        """Prepare the operations.

        Args:
            max_operations: their number is uniform from 1 to this.
            blur_sigma: smallest and largest standard deviation of the blur in pixels.
        """
        self.max_operations = max_operations
        kernel, (softest, strongest) = _kernel(blur_sigma), blur_sigma
        # Each operation with the range that its intensity is uniform in; whole numbers are rounded down.
        self.operations: list[tuple[Callable[[Tensor, float], Tensor], float, float]] = [
            (lambda image, _: image, 0, 1),
            (lambda image, _: F.autocontrast(image), 0, 1),
            (lambda image, _: F.equalize(image), 0, 1),
            (lambda image, sigma: F.gaussian_blur(image, [kernel, kernel], [sigma, sigma]), softest, strongest),
            (F.adjust_contrast, 0.05, 0.95),
            (F.adjust_brightness, 0.05, 0.95),
            (F.adjust_saturation, 0.05, 0.95),
            (F.adjust_sharpness, 0.05, 0.95),
            (lambda image, bits: F.posterize(image, int(bits)), 4, 8),
            (lambda image, threshold: F.solarize(image, int(threshold)), 1, 256),
            (F.adjust_hue, -0.5, 0.5),
        ]

    def __call__(self, image: Tensor) -> Tensor:
        """A strong view of `image` (3, H, W) uint8 RGB, of the same shape and type."""
        count = int(torch.randint(1, self.max_operations + 1, ()))
        for number in torch.randint(len(self.operations), (count,)).tolist():
            operation, low, high = self.operations[number]
            image = operation(image, low + (high - low) * torch.rand(()).item())
        return image


def _kernel(blur_sigma: Sequence[float]) -> int:
    """Side of a kernel that holds three standard deviations of the strongest blur."""
    return 2 * math.ceil(3 * max(blur_sigma)) + 1
