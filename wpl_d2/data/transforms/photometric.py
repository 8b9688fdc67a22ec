"""The strong view: other colours of the weak view's pixels, by UniMatch's recipe or by AugSeg's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

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
        softest, strongest = blur_sigma
        # Each operation with the range that its intensity is uniform in; whole numbers are rounded down. No lambdas:
        # where processes are not forked, a loader's workers get them by pickling.
        self.operations: list[tuple[Callable[[Tensor, float], Tensor], float, float]] = [
            (_identity, 0, 1),
            (_autocontrast, 0, 1),
            (_equalize, 0, 1),
            (partial(_blur, kernel=_kernel(blur_sigma)), softest, strongest),
            (F.adjust_contrast, 0.05, 0.95),
            (F.adjust_brightness, 0.05, 0.95),
            (F.adjust_saturation, 0.05, 0.95),
            (F.adjust_sharpness, 0.05, 0.95),
            (_posterize, 4, 8),
            (_solarize, 1, 256),
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


def _identity(image: Tensor, intensity: float) -> Tensor:
    return image


def _autocontrast(image: Tensor, intensity: float) -> Tensor:
    return F.autocontrast(image)


def _equalize(image: Tensor, intensity: float) -> Tensor:
    return F.equalize(image)


def _blur(image: Tensor, sigma: float, kernel: int) -> Tensor:
    return F.gaussian_blur(image, [kernel, kernel], [sigma, sigma])


def _posterize(image: Tensor, bits: float) -> Tensor:
    return F.posterize(image, int(bits))


def _solarize(image: Tensor, threshold: float) -> Tensor:
    return F.solarize(image, int(threshold))
