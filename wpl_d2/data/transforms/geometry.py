"""The geometry of a training view: random scale, flip, and a crop that is always of the asked size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import detectron2.data.transforms as T
import numpy as np
from fvcore.transforms.transform import CropTransform, PadTransform

from ...structures import IGNORE


class InterpolateTransform(T.ResizeTransform):
    """A resize by `torch.nn.functional.interpolate` as networks use it: images bilinear, unsmoothed; masks nearest."""

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize an image (H, W, C) or mask (H, W) of whole numbers."""
        # Detectron2 gives bytes to PIL, which smooths what it makes smaller, and floats to torch.
        return super().apply_image(img.astype(np.float32), interp).round().astype(img.dtype)


class RandomScale(T.Augmentation):
    """Resize by a random factor; the aspect ratio stays."""

    def __init__(
        self, scale_range: Sequence[float], base: int = 0, balanced: bool = False, resize: str = "antialias"
    ) -> None:
        """Prepare the draws.

        Args:
            scale_range: smallest and largest factor.
            base: long side in pixels that factor 1 stands for; 0: the image's own.
            balanced: False: the factor is uniform in the range; True: uniform below 1 in half of the draws and
                above 1 in the others (U2PL, AEL); 1 has to be in the range.
            resize: "antialias": by PIL, to a rounded size; "bilinear": by `InterpolateTransform`, to a size that is
                rounded down (U2PL, AEL).
        """
        super().__init__()
        self.low, self.high = scale_range
        self.base = base
        self.balanced = balanced
        self.antialias = resize == "antialias"

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw the factor for `image` (H, W, 3)."""
        height, width = image.shape[:2]
        factor = self._draw() * (self.base / max(height, width) if self.base else 1.0)
        if self.antialias:
            return T.ResizeTransform(height, width, max(1, round(height * factor)), max(1, round(width * factor)))
        return InterpolateTransform(height, width, max(1, int(height * factor)), max(1, int(width * factor)))

    def _draw(self) -> float:
        if not self.balanced:
            return self._rand_range(self.low, self.high)
        return self._rand_range(self.low, 1.0) if self._rand_range() < 0.5 else self._rand_range(1.0, self.high)


class ColorPadTransform(PadTransform):
    """Padding at the right and the bottom with one colour in images and `IGNORE` in masks."""

    def __init__(self, content: tuple[int, int], size: tuple[int, int], color: Sequence[float]) -> None:
        """Pad from `content` to `size`.

        Args:
            content: (height, width) before.
            size: (height, width) after.
            color: a value for each channel.
        """
        (height, width), (new_height, new_width) = content, size
        super().__init__(0, 0, new_width - width, new_height - height, width, height, 0, IGNORE)
        self.color = color

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Pad an image (H, W, C)."""
        padded = np.empty((img.shape[0] + self.y1, img.shape[1] + self.x1, img.shape[2]), dtype=img.dtype)
        padded[...] = np.asarray(self.color).round()
        padded[: img.shape[0], : img.shape[1]] = img
        return padded


class PaddedCrop(T.Augmentation):
    """A crop of exactly one size at a uniformly random place, with padding where the image is smaller.

    Unlike Detectron2's `FixedSizeCrop`, whose offsets lie on the diagonal, rows and columns are drawn
    independently.
    """

    def __init__(self, size: Sequence[int], color: Sequence[float]) -> None:
        """Crop to `size`.

        Args:
            size: (height, width) in pixels.
            color: colour of the padding, a value for each channel.
        """
        super().__init__()
        self.height, self.width = size
        self.color = color

    def get_transform(self, image: np.ndarray) -> T.TransformList:
        """Draw the place of the crop in `image` (H, W, 3)."""
        height, width = image.shape[:2]
        content = min(height, self.height), min(width, self.width)
        y0 = np.random.randint(height - content[0] + 1)
        x0 = np.random.randint(width - content[1] + 1)
        crop = CropTransform(x0, y0, content[1], content[0], width, height)
        return T.TransformList([crop, ColorPadTransform(content, (self.height, self.width), self.color)])


class View(NamedTuple):
    """A training view of an image.

    Attributes:
        image: (H, W, 3) uint8 of the crop's size.
        transform: what led there from the image, for its mask and boxes.
        content: (height, width) of the part at the top left that is not padding.
    """

    image: np.ndarray
    transform: T.TransformList
    content: tuple[int, int]


class RandomView:
    """Scale, flip and crop an image: the labeled view, and the weak view of an unlabeled image."""

    def __init__(
        self,
        scale_range: Sequence[float],
        crop_size: Sequence[int],
        color: Sequence[float],
        flip: bool = True,
        *,
        scale_base: int = 0,
        scale_balanced: bool = False,
        resize: str = "antialias",
    ) -> None:
        """Prepare the augmentations, which draw from numpy's global generator.

        Args:
            scale_range: smallest and largest factor of the resize.
            crop_size: (height, width) of the view in pixels.
            color: colour of the padding, a value in 0..255 for each channel.
            flip: whether to mirror every other view, left to right.
            scale_base: long side that factor 1 stands for, see `RandomScale`.
            scale_balanced: whether to shrink as often as to enlarge, see `RandomScale`.
            resize: "antialias" or "bilinear", see `RandomScale`.
        """
        # The flip comes before the crop so that padding is always at the right and the bottom.
        scale = RandomScale(scale_range, scale_base, scale_balanced, resize)
        mirror = T.RandomFlip(prob=0.5 if flip else 0.0)
        crop = PaddedCrop(crop_size, color)
        self.augmentations = T.AugmentationList([scale, mirror, crop])

    def __call__(self, image: np.ndarray) -> View:
        """Draw a view of `image` (H, W, 3) uint8."""
        moved = T.AugInput(image)
        transform = self.augmentations(moved)
        pad = transform.transforms[-1]
        return View(moved.image, transform, (pad.orig_h, pad.orig_w))
