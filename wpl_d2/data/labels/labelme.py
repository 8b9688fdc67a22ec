"""LabelMe's JSON, one file for each image: https://github.com/wkentaro/labelme (shapes as of its version 5 to 7)."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from ...utils.errors import InputError
from ...utils.files import read_text
from .label_format import LABEL_FORMATS, ListedImage
from .shape_format import ImageFileFormat
from .shapes import LabeledImage, Polygon, Region, Shape, ellipse, rectangle


@LABEL_FORMATS.register()
class LabelMe(ImageFileFormat):
    """Polygons, rectangles (upright and turned), circles and masks; lines and points have no area and are refused.

    Shapes of one label and one `group_id` are one instance. An image whose file has no shapes is labeled, and nothing
    in it is covered.
    """

    name = "labelme"
    tool = "LabelMe"

    def usual_file(self, image: Path) -> Path:
        """Beside the image."""
        return image.with_suffix(".json")

    def parse(self, image: ListedImage) -> LabeledImage:
        """See `ShapeFormat`."""
        file = self.file(image)
        content = json.loads(read_text(file))
        # It is written on Windows with backslashes, which Windows takes for slashes too.
        if PureWindowsPath(content["imagePath"]).stem != Path(image.file).stem:
            raise InputError(
                f"{file}: labels the image {content['imagePath']!r}, not {image.file}; rename one of the files, or "
                "mend 'imagePath'"
            )
        size = content.get("imageHeight"), content.get("imageWidth")
        groups: dict[Any, list[Polygon | Region]] = {}
        for index, shape in enumerate(content["shapes"]):
            group = shape.get("group_id")
            key = shape["label"], index if group is None else None, group
            groups.setdefault(key, []).append(_part(shape, f"{file}: shape {index} ({shape['label']!r})"))
        shapes = [Shape(label, parts) for (label, *_), parts in groups.items()]
        return LabeledImage(shapes, str(file), None if None in size else (int(size[0]), int(size[1])))


def _part(shape: Mapping[str, Any], source: str) -> Polygon | Region:
    kind = shape.get("shape_type") or "polygon"  # files of early versions do not say it
    points = np.array(shape["points"], dtype=np.float64).reshape(-1, 2)
    counts = {"rectangle": 2, "circle": 2, "mask": 2, "oriented_rectangle": 4}
    if len(points) != counts.get(kind, len(points)):
        raise InputError(f"{source}: is a {kind} of {len(points)} points, not {counts[kind]}; redraw it in LabelMe")
    if kind in ("polygon", "oriented_rectangle"):
        return points
    if kind == "rectangle":
        return rectangle(*points.min(axis=0), *points.max(axis=0))
    if kind == "circle":
        radius = float(np.hypot(*(points[1] - points[0])))
        return ellipse(points[0, 0], points[0, 1], radius, radius)
    if kind == "mask":
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as mask:
            x, y = points[0].astype(int).tolist()
            return Region.of_pixels(np.asarray(mask), x, y)
    raise InputError(
        f"{source}: is a {kind}, which has no area that is known here; draw a polygon, rectangle, circle or mask "
        "instead, or delete it in LabelMe"
    )
