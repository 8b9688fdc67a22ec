"""The geometry of a training view: random scale, flip, and a crop that is always of the asked size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import detectron2.data.transforms as T
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ...structures import IGNORE

_FASTER = 2.5
"""How many times as fast PyTorch resizes bytes as PIL does."""


def _support(old: int, new: int) -> int:
    """Pixels that the filter of a resize sees around a place."""
    return math.ceil(max(old / new, 1.0)) + 1


class ViewTransform(T.Transform):
    """Resize, mirror, crop and pad in one step: only what the crop shows is resized.

    The result is that of resizing the whole image.

    Attributes:
        content: (height, width) of the part of the view, at the top left, that is not padding.
    """

    def __init__(
        self,
        size: tuple[int, int],
        resized: tuple[int, int],
        flip: bool,
        corner: tuple[int, int],
        crop_size: tuple[int, int],
        color: Sequence[float],
        resize: str,
    ) -> None:
        """Fix what is done.

        Args:
            size: (height, width) of the image.
            resized: (height, width) that it is resized to.
            flip: whether it is then mirrored, left to right.
            corner: first row and column of the crop.
            crop_size: (height, width) of the crop; what is not in the image is padded, at the right and the bottom.
            color: color of the padding, a value for each channel; that of masks is `IGNORE`.
            resize: see `RandomView`.
        """
        super().__init__()
        self.size = size
        self.resized = resized
        self.flip = flip
        self.corner = corner
        self.crop_size = crop_size
        self.color = color
        self.resize = resize
        self.content = (min(resized[0] - corner[0], crop_size[0]), min(resized[1] - corner[1], crop_size[1]))

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """The view (h, w, C) of an image (H, W, C), uint8 or float32."""
        view = self._antialias(img) if self.resize == "antialias" else self._interpolate(img)
        view = view[:, ::-1] if self.flip else view
        if self.content == self.crop_size:
            return view
        padded = np.empty((*self.crop_size, view.shape[2]), dtype=view.dtype)
        padded[...] = np.asarray(self.color).round()
        padded[: self.content[0], : self.content[1]] = view
        return padded

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """The view (h, w) of a mask (H, W): each pixel takes the nearest one."""
        rows, columns = (
            # As PIL, the pixel under the center; as `torch.nn.functional.interpolate`, that under the corner.
            ((2 * places + 1) * old // (2 * new) if self.resize == "antialias" else places * old // new)
            for places, old, new in zip(self._places(), self.size, self.resized, strict=True)
        )
        view = np.full(self.crop_size, IGNORE, dtype=segmentation.dtype)
        view[: self.content[0], : self.content[1]] = segmentation[rows][:, columns[::-1] if self.flip else columns]
        return view

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Points (N, 2), x and y in pixels of the image, in those of the view."""
        (height, width), (new_height, new_width) = self.size, self.resized
        x, y = coords[:, 0] * (new_width / width), coords[:, 1] * (new_height / height)
        x = new_width - x if self.flip else x
        return np.stack([x - self.corner[1], y - self.corner[0]], axis=1)

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the resized image that the crop shows, before it is mirrored."""
        (y0, x0), (height, width) = self.corner, self.content
        x0 = self.resized[1] - x0 - width if self.flip else x0
        return np.arange(y0, y0 + height), np.arange(x0, x0 + width)

    def _antialias(self, image: np.ndarray) -> np.ndarray:
        """The crop, before it is mirrored, as by PIL."""
        sizes = list(zip(self._places(), self.size, self.resized, strict=True))
        # PyTorch's resize is several times as fast as PIL's, but begins at an edge: from the nearer one up to the crop.
        far = [new - places[-1] - 1 < places[0] for places, _, new in sizes]
        skipped = [min(places[0], new - places[-1] - 1) for places, _, new in sizes]
        height, width = (skip + side for skip, side in zip(skipped, self.content, strict=True))
        if height * width > _FASTER * math.prod(self.content):
            return self._antialias_window(image)
        turns = tuple(slice(None, None, -1 if back else 1) for back in far)
        window = tuple(
            slice(0, math.ceil(side * old / new) + _support(old, new))
            for side, (_, old, new) in zip((height, width), sizes, strict=True)
        )
        pixels = torch.from_numpy(np.array(image[turns][window])).permute(2, 0, 1)
        scales = [new / old * (1 + 1e-9) for _, old, new in sizes]  # whose sizes are rounded down
        found = F.interpolate(pixels[None], scale_factor=scales, mode="bilinear", antialias=True)[0]
        return found.permute(1, 2, 0).numpy()[skipped[0] : height, skipped[1] : width][turns]

    def _antialias_window(self, image: np.ndarray) -> np.ndarray:
        """The same by PIL, of what the crop shows alone."""
        window, box = [], []
        for places, old, new in zip(self._places(), self.size, self.resized, strict=True):
            start, stop = places[0] * old / new, min((places[-1] + 1) * old / new, old)
            window.append(slice(max(0, int(start) - _support(old, new)), int(stop) + _support(old, new) + 1))
            box.append((start - window[-1].start, stop - window[-1].start))
        (top, bottom), (left, right) = box

        def resize(pixels: np.ndarray) -> np.ndarray:
            picture, area = Image.fromarray(pixels), (left, top, right, bottom)
            return np.asarray(picture.resize(self.content[::-1], Image.Resampling.BILINEAR, area))

        if image.dtype == np.uint8:
            return resize(image[*window])
        # Pillow has floats in single channels.
        return np.stack([resize(np.ascontiguousarray(plane)) for plane in image[*window].transpose(2, 0, 1)], axis=2)

    def _interpolate(self, image: np.ndarray) -> np.ndarray:
        """The crop, before it is mirrored, as networks resize: between the four nearest pixels, unsmoothed."""
        grid, window = [], []
        for places, old, new in zip(self._places(), self.size, self.resized, strict=True):
            centers = ((places + 0.5) * old / new - 0.5).clip(0, old - 1)
            start, stop = int(centers[0]), int(centers[-1]) + 2
            window.append(slice(start, stop))
            # `grid_sample` counts from -1 at the first pixel's edge to 1 at the last one's.
            grid.append(torch.from_numpy((2 * (centers - start) + 1) / (min(stop, old) - start) - 1).float())
        pixels = torch.from_numpy(image[*window].astype(np.float32)).permute(2, 0, 1)
        points = torch.stack(torch.meshgrid(*grid, indexing="ij")[::-1], dim=-1)
        found = F.grid_sample(pixels[None], points[None], padding_mode="border", align_corners=False)[0]
        found = found.round().to(torch.uint8) if image.dtype == np.uint8 else found
        return found.permute(1, 2, 0).numpy()


class View(NamedTuple):
    """A training view of an image.

    Attributes:
        image: (H, W, C) of the crop's size, uint8 or float32.
        transform: what led there from the image, for its mask and boxes.
    """

    image: np.ndarray
    transform: ViewTransform


class RandomView:
    """Scale, flip and crop an image: the labeled view, and the weak view of an unlabeled image.

    Draws from numpy's global generator. Rows and columns of the crop are drawn independently. The flip comes before
    the crop, so that padding is always at the right and the bottom.
    """

    def __init__(
        self,
        scale_range: Sequence[float],
        crop_size: Sequence[int],
        color: Sequence[float],
        flip: bool = True,
        *,
        scale_base: int = 0,
        scale_side: str = "longer",
        scale_balanced: bool = False,
        resize: str = "antialias",
    ) -> None:
        """Prepare the draws.

        Args:
            scale_range: smallest and largest factor of the resize; the aspect ratio stays.
            crop_size: (height, width) of the view in pixels.
            color: color of the padding, a value in 0..255 for each channel.
            flip: whether to mirror every other view, left to right.
            scale_base: length in pixels that factor 1 stands for; 0: the image's own.
            scale_side: "longer" or "shorter": the side that has it.
            scale_balanced: False: the factor is uniform in the range; True: uniform below 1 in half of the draws and
                above 1 in the others (U2PL, AEL); 1 has to be in the range.
            resize: "antialias": by PIL, which smooths what becomes smaller, to a rounded size; "bilinear": by
                `torch.nn.functional.interpolate`, which does not, to a size that is rounded down (U2PL, AEL).
        """
        self.low, self.high = scale_range
        self.crop_size = (crop_size[0], crop_size[1])
        self.color = color
        self.flip = flip
        self.base = scale_base
        self.side = min if scale_side == "shorter" else max
        self.balanced = scale_balanced
        self.resize = resize

    def __call__(self, image: np.ndarray) -> View:
        """Draw a view of `image` (H, W, C), uint8 or float32."""
        transform = self.draw((image.shape[0], image.shape[1]))
        return View(transform.apply_image(image), transform)

    def draw(self, size: tuple[int, int]) -> ViewTransform:
        """Draw the geometry for an image of `size` (height, width)."""
        factor = self._factor() * (self.base / self.side(size) if self.base else 1.0)
        shorten = round if self.resize == "antialias" else int
        height, width = (max(1, shorten(side * factor)) for side in size)
        flip = np.random.uniform() < (0.5 if self.flip else 0.0)
        corner = (
            np.random.randint(max(0, height - self.crop_size[0]) + 1),
            np.random.randint(max(0, width - self.crop_size[1]) + 1),
        )
        return ViewTransform(size, (height, width), flip, corner, self.crop_size, self.color, self.resize)

    def _factor(self) -> float:
        if not self.balanced:
            return np.random.uniform(self.low, self.high)
        return np.random.uniform(self.low, 1.0) if np.random.uniform() < 0.5 else np.random.uniform(1.0, self.high)
