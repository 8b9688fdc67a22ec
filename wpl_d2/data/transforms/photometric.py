"""The strong view: other colors of the weak view's pixels, by UniMatch's recipe or by AugSeg's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from . import color
from .color import Operation, Operations
from .color_batch import RGB, Places, change_colors, needs_colors


class StrongView:
    """Changes the colors of an image by operations that a subclass draws from torch's global generator.

    Of images with other channels than red, green and blue it does what `color_batch` says.

    Attributes:
        rgb: the places of red, green and blue among an image's channels; None if it has no such colors.
    """

    def __init__(self, rgb: Places | None = RGB) -> None:
        self.rgb = rgb

    def draw(self) -> Operations:
        """Draw what to do."""
        raise NotImplementedError

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """A strong view of `image`, (H, W, 3) uint8 RGB or (H, W, C) float32 in 0..255, of the same shape and type."""
        drawn = self.draw()
        if image.dtype != np.uint8:
            pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
            return change_colors(pixels[None], [drawn], self.rgb)[0].permute(1, 2, 0).numpy()
        for operation, value in drawn:
            image = operation(image, value)
        return image

    def _applicable(self, operations: Sequence[tuple[Operation, float, float]]) -> list[tuple[Operation, float, float]]:
        """Those of the operations, each with its range of values, that change something of such images."""
        return [found for found in operations if self.rgb is not None or not needs_colors(found[0])]


class JitterView(StrongView):
    """Color jitter, grayscale and blur (UniMatch), each with its probability."""

    def __init__(
        self,
        jitter: Sequence[float],
        jitter_prob: float,
        gray_prob: float,
        blur_prob: float,
        blur_sigma: Sequence[float],
        rgb: Places | None = RGB,
    ) -> None:
        """Prepare the draws.

        Args:
            jitter: ranges of brightness, contrast, saturation and hue, as of torchvision's `ColorJitter`.
            jitter_prob: probability of the jitter, which does the four in random order.
            gray_prob: probability of grayscale.
            blur_prob: probability of the blur.
            blur_sigma: smallest and largest standard deviation of the blur in pixels.
            rgb: see `StrongView`; without colors brightness, contrast and blur remain.
        """
        super().__init__(rgb)
        *factors, hue = jitter
        scaled = (color.adjust_brightness, color.adjust_contrast, color.adjust_saturation)
        self.jitter = self._applicable(
            [
                *((adjust, max(0.0, 1 - part), 1 + part) for adjust, part in zip(scaled, factors, strict=True)),
                (color.adjust_hue, -hue, hue),
            ]
        )
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
        if _uniform() < self.gray_prob and self.rgb is not None:
            drawn.append((color.to_grayscale, 0.0))
        if _uniform() < self.blur_prob:
            drawn.append((color.gaussian_blur, _uniform(*self.blur_sigma)))
        return drawn


class IntensityView(StrongView):
    """A random number of random operations, each of a random intensity (AugSeg, Zhao et al., CVPR 2023, section 3.2).

    Operations may come more than once; one of them changes nothing.
    """

    def __init__(self, max_operations: int, blur_sigma: Sequence[float], rgb: Places | None = RGB) -> None:
        """Prepare the draws.

        Args:
            max_operations: their number is uniform from 1 to this.
            blur_sigma: smallest and largest standard deviation of the blur in pixels.
            rgb: see `StrongView`; without colors saturation and hue are not among the operations.
        """
        super().__init__(rgb)
        self.max_operations = max_operations
        softest, strongest = blur_sigma
        # Each operation with the range that its intensity is uniform in.
        self.operations = self._applicable(
            [
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
        )

    def draw(self) -> Operations:
        """Draw what to do."""
        count = int(torch.randint(1, self.max_operations + 1, ()))
        places = torch.randint(len(self.operations), (count,)).tolist()
        drawn = [self.operations[place] for place in places]
        return [(operation, _uniform(low, high)) for operation, low, high in drawn]


def _uniform(low: float = 0.0, high: float = 1.0) -> float:
    return torch.empty(()).uniform_(low, high).item()
