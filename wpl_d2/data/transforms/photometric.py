"""The strong view: other colors of the weak view's pixels, by UniMatch's recipe or by AugSeg's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from . import color

Operation = Callable[[np.ndarray, float], np.ndarray]
"""A function of `color`: an image (H, W, 3) uint8 and a value to an image."""

Operations = list[tuple[Operation, float]]
"""What is done to an image, in this order, each with its value."""


class StrongView:
    """Changes the colors of an image by operations that a subclass draws from torch's global generator."""

    def draw(self) -> Operations:
        """Draw what to do."""
        raise NotImplementedError

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """A strong view of `image` (H, W, 3) uint8 RGB, of the same shape and type."""
        for operation, value in self.draw():
            image = operation(image, value)
        return image


class JitterView(StrongView):
    """Color jitter, grayscale and blur (UniMatch), each with its probability."""

    def __init__(
        self,
        jitter: Sequence[float],
        jitter_prob: float,
        gray_prob: float,
        blur_prob: float,
        blur_sigma: Sequence[float],
    ) -> None:
        """Prepare the draws.

        Args:
            jitter: ranges of brightness, contrast, saturation and hue, as of torchvision's `ColorJitter`.
            jitter_prob: probability of the jitter, which does the four in random order.
            gray_prob: probability of grayscale.
            blur_prob: probability of the blur.
            blur_sigma: smallest and largest standard deviation of the blur in pixels.
        """
        *factors, hue = jitter
        scaled = (color.adjust_brightness, color.adjust_contrast, color.adjust_saturation)
        self.jitter: list[tuple[Operation, float, float]] = [
            *((adjust, max(0.0, 1 - part), 1 + part) for adjust, part in zip(scaled, factors, strict=True)),
            (color.adjust_hue, -hue, hue),
        ]
        self.jitter_prob = jitter_prob
        self.gray_prob = gray_prob
        self.blur_prob = blur_prob
        self.blur_sigma = blur_sigma

    def draw(self) -> Operations:
        """Draw what to do."""
        drawn: Operations = []
        if _uniform() < self.jitter_prob:
            order = torch.randperm(len(self.jitter)).tolist()
            values = [(adjust, _uniform(low, high)) for adjust, low, high in self.jitter]
            drawn = [values[place] for place in order]
        if _uniform() < self.gray_prob:
            drawn.append((color.to_grayscale, 0.0))
        if _uniform() < self.blur_prob:
            drawn.append((color.gaussian_blur, _uniform(*self.blur_sigma)))
        return drawn


class IntensityView(StrongView):
    """A random number of random operations, each of a random intensity (AugSeg, Zhao et al., CVPR 2023, section 3.2).

    Operations may come more than once; one of them changes nothing.
    """

    def __init__(self, max_operations: int, blur_sigma: Sequence[float]) -> None:
        """Prepare the draws.

        Args:
            max_operations: their number is uniform from 1 to this.
            blur_sigma: smallest and largest standard deviation of the blur in pixels.
        """
        self.max_operations = max_operations
        softest, strongest = blur_sigma
        # Each operation with the range that its intensity is uniform in.
        self.operations: list[tuple[Operation, float, float]] = [
            (color.identity, 0.0, 1.0),
            (color.autocontrast, 0.0, 1.0),
            (color.equalize, 0.0, 1.0),
            (color.gaussian_blur, softest, strongest),
            (color.adjust_contrast, 0.05, 0.95),
            (color.adjust_brightness, 0.05, 0.95),
            (color.adjust_saturation, 0.05, 0.95),
            (color.adjust_sharpness, 0.05, 0.95),
            (color.posterize, 4.0, 8.0),
            (color.solarize, 1.0, 256.0),
            (color.adjust_hue, -0.5, 0.5),
        ]

    def draw(self) -> Operations:
        """Draw what to do."""
        count = int(torch.randint(1, self.max_operations + 1, ()))
        places = torch.randint(len(self.operations), (count,)).tolist()
        drawn = [self.operations[place] for place in places]
        return [(operation, _uniform(low, high)) for operation, low, high in drawn]


def _uniform(low: float = 0.0, high: float = 1.0) -> float:
    return torch.empty(()).uniform_(low, high).item()
