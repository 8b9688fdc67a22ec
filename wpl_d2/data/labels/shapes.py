"""Labels as shapes: what tools write about an image, and the one way in which it is turned into class ids.

- Larger shapes are drawn first, so that smaller ones lie on top of them, as in Detectron2's and COCO-Stuff's
  conversions; of equally large ones the later one lies on top. A format with an order of its own states it as `layer`.
- Polygons are drawn by pycocotools, as COCO's own tools draw them: a pixel is inside if its center is, to within 0.15
  pixels. One that crosses itself is filled even-odd: what it goes around twice is outside. Several polygons of a shape
  are united.
- What lies outside of the image is cut off. What no shape covers is the caller's to say.
- The box of a shape is that of all of its pixels in the image, also of those on which others lie. A shape without a
  pixel in it has none, and neither has a crowd, which the mask shows like any other shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ...structures import IGNORE
from ...utils.errors import InputError
from .label_format import Labels

Polygon = NDArray[np.float64]
_GRID = 5  # steps of a pixel to which pycocotools rounds the corners of polygons
_FAR = 10  # image sides; further away, corners are of another image or no pixels
_FLATNESS = 0.05  # pixels between an ellipse and its polygon


@dataclass(frozen=True)
class Region:
    """Pixels of a part of an image.

    Attributes:
        rle: compressed, as pycocotools makes it: `size` (height, width) and `counts`.
        x: the part's first column.
        y: its first row.
    """

    rle: Mapping[str, Any]
    x: int = 0
    y: int = 0

    @classmethod
    def of_pixels(cls, pixels: np.ndarray, x: int = 0, y: int = 0) -> Region:
        """From (H, W) pixels that are not 0 where the shape is; `x` and `y` are where the first one lies."""
        return cls(coco_mask.encode(np.asfortranarray(pixels != 0).view(np.uint8)), x, y)


@dataclass(frozen=True)
class Shape:
    """One annotated instance.

    Attributes:
        category: its name, as the tool has it.
        parts: polygons, (n, 2) x and y in pixels, the first pixel's center at (0.5, 0.5), and pixels.
        crowd: whether it stands for several instances, whose number nobody counted.
        layer: shapes of a higher layer lie on those of a lower one, whatever their sizes.
    """

    category: str
    parts: Sequence[Polygon | Region]
    crowd: bool = False
    layer: int = 0


@dataclass(frozen=True)
class LabeledImage:
    """What a tool says about an image.

    Attributes:
        shapes: may be empty.
        source: the file, and the image in it if it holds several, for messages.
        size: height and width, if the file says them.
        relative: whether the corners of polygons are shares of the image's width and height, not pixels.
    """

    shapes: Sequence[Shape]
    source: str
    size: tuple[int, int] | None = None
    relative: bool = False


class _Drawn(NamedTuple):
    """The pixels of a shape inside of the image: their number, and the box (x0, y0, x1, y1) around them."""

    shape: Shape
    region: Region
    area: int
    box: tuple[int, int, int, int]


def rasterize(
    image: LabeledImage, size: tuple[int, int], class_ids: Mapping[str, int], uncovered: int = IGNORE
) -> Labels:
    """Draw the shapes of an image, by the rules above.

    Args:
        image: whose shapes.
        size: height and width of the image itself.
        class_ids: class id, or `IGNORE`, of each category. Instances of `IGNORE` get no box.
        uncovered: the id of what no shape covers.

    Raises:
        InputError: the labels are of an image of another size, or a shape cannot be drawn.
    """
    if image.size is not None and image.size != size:
        turned = image.size == size[::-1]
        raise InputError(
            f"{image.source}: labels an image of {_size(image.size)} pixels, but the image has {_size(size)}; put the "
            f"image there that was labeled{', or change `exif` of the data set, if that turns it' if turned else ''}"
        )
    mask = np.full(size, uncovered, dtype=np.uint8)
    drawn = []
    for shape in image.shapes:
        region = _draw(shape, size, image)
        area = int(coco_mask.area(region.rle)) if region else 0
        if region and area:
            drawn.append(_Drawn(shape, region, area, _box(region)))
    for shape, region, _, (x0, y0, x1, y1) in sorted(drawn, key=lambda item: (item.shape.layer, -item.area)):
        pixels = _decode(region, shape, image)[y0 - region.y : y1 - region.y, x0 - region.x : x1 - region.x]
        np.copyto(mask[y0:y1, x0:x1], np.uint8(class_ids[shape.category]), where=pixels.view(bool))
    instances = [
        (item.box, class_ids[item.shape.category])
        for item in drawn
        if not item.shape.crowd and class_ids[item.shape.category] != IGNORE
    ]
    boxes = np.array([box for box, _ in instances], dtype=np.float32).reshape(-1, 4)
    return Labels(mask, boxes, np.array([class_id for _, class_id in instances], dtype=np.int64))


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    """The corners of a rectangle."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)


def ellipse(x: float, y: float, x_radius: float, y_radius: float, degrees: float = 0.0) -> Polygon:
    """A polygon that is an ellipse to within a twentieth of a pixel.

    Args:
        x: of its center.
        y: of its center.
        x_radius: before it is turned.
        y_radius: before it is turned.
        degrees: by which it is turned clockwise, as seen in the image.
    """
    radius = max(abs(x_radius), abs(y_radius), 1.0)
    corners = max(8, math.ceil(math.pi / math.acos(1 - _FLATNESS / radius)))
    angles = np.arange(corners) * (2 * np.pi / corners)
    points = np.stack([x_radius * np.cos(angles), y_radius * np.sin(angles)], axis=1)
    return turn(points, degrees) + np.array([x, y])


def turn(points: Polygon, degrees: float, center: tuple[float, float] = (0.0, 0.0)) -> Polygon:
    """Turn points around a center, clockwise as seen in the image."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (points - center) @ np.array([[cos, sin], [-sin, cos]]) + center


def _draw(shape: Shape, size: tuple[int, int], image: LabeledImage) -> Region | None:
    """The pixels of a shape, cut at the border of an image of a size; None if all are outside."""
    if not shape.parts:
        raise InputError(f"{_where(shape, image)} has no outline; draw it, or delete the shape in the tool")
    parts = []
    for part in shape.parts:
        if isinstance(part, Region):
            parts.append(_cut(part, size, shape, image))
        else:
            parts.append(_fill(_corners(part, size, shape, image), size))
    return _unite([part for part in parts if part is not None], shape, image)


def _corners(points: Polygon, size: tuple[int, int], shape: Shape, image: LabeledImage) -> Polygon:
    height, width = size
    where = _where(shape, image)
    if len(points) < 3:
        raise InputError(f"{where} is a polygon of {len(points)} points; delete it in the tool, or draw 3 or more")
    points = points * (width, height) if image.relative else points
    if not (np.abs(points) <= _FAR * max(size)).all():  # nor NaN
        x, y = points[np.argmax(np.nan_to_num(np.abs(points), nan=np.inf).max(axis=1))]
        raise InputError(
            f"{where} has a corner at ({x:g}, {y:g}), and the image has {_size(size)} pixels; delete or redraw it in "
            "the tool, or put the image there that was labeled"
        )
    return points


def _fill(points: Polygon, size: tuple[int, int]) -> Region | None:
    # In a window around it: of a large image only that is decoded later. The corners are rounded before they are moved,
    # so that the window changes no pixel; pycocotools rounds negative ones toward zero.
    grid = np.trunc(_GRID * points + 0.5)
    x0, y0 = (max(0, math.floor(value)) for value in grid.min(axis=0) / _GRID)
    x1, y1 = (math.ceil(value) + 1 for value in grid.max(axis=0) / _GRID)
    height, width = min(y1, size[0]) - y0, min(x1, size[1]) - x0
    if height <= 0 or width <= 0:
        return None
    moved = grid - (_GRID * x0, _GRID * y0)
    corners = (moved - 0.75 * (moved < 0)) / _GRID
    return Region(coco_mask.frPyObjects([corners.ravel().tolist()], height, width)[0], x0, y0)


def _cut(region: Region, size: tuple[int, int], shape: Shape, image: LabeledImage) -> Region | None:
    height, width = region.rle["size"]
    top, left = max(0, -region.y), max(0, -region.x)
    bottom, right = min(height, size[0] - region.y), min(width, size[1] - region.x)
    if bottom <= top or right <= left:
        return None
    if (top, left, bottom, right) == (0, 0, height, width):
        return region
    pixels = _decode(region, shape, image)[top:bottom, left:right]
    return Region.of_pixels(pixels, region.x + left, region.y + top)


def _unite(regions: Sequence[Region], shape: Shape, image: LabeledImage) -> Region | None:
    if len(regions) < 2:
        return regions[0] if regions else None
    ends = np.array([(r.y + r.rle["size"][0], r.x + r.rle["size"][1]) for r in regions]).max(axis=0)
    x, y = min(region.x for region in regions), min(region.y for region in regions)
    pixels = np.zeros(ends - (y, x), dtype=np.uint8)
    for region in regions:
        height, width = region.rle["size"]
        window = pixels[region.y - y : region.y - y + height, region.x - x : region.x - x + width]
        window |= _decode(region, shape, image)
    return Region.of_pixels(pixels, x, y)


def _decode(region: Region, shape: Shape, image: LabeledImage) -> np.ndarray:
    try:
        return coco_mask.decode(region.rle)
    except ValueError as error:
        raise InputError(
            f"{_where(shape, image)}: its run lengths do not fill {_size(region.rle['size'])} pixels ({error}); export "
            "it anew"
        ) from None


def _box(region: Region) -> tuple[int, int, int, int]:
    x, y, width, height = coco_mask.toBbox(region.rle).astype(int).tolist()
    return x + region.x, y + region.y, x + region.x + width, y + region.y + height


def _where(shape: Shape, image: LabeledImage) -> str:
    return f"{image.source}: a shape of {shape.category!r}"


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
