"""The JSON of the VGG Image Annotator, version 2: https://www.robots.ox.ac.uk/~vgg/software/via/."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...utils.errors import InputError
from .json_entries import read_entries
from .label_format import LABEL_FORMATS
from .set_file_format import FileIndex, SetFileFormat
from .shapes import LabeledImage, Polygon, Shape, ellipse, rectangle

if TYPE_CHECKING:
    from ..datasets.folder import Description

_IMAGES = "_via_img_metadata"  # of a project; an export of annotations is what a project has there


@LABEL_FORMATS.register()
class Via(SetFileFormat):
    """Polygons, rectangles, circles and ellipses of a project or of exported annotations; the rest has no area.

    The file lists all images of a project, also those that nobody has looked at: an image without regions is unlabeled.
    """

    name = "via"
    tool = "VIA"

    def __init__(self, description: Description, *, attribute: object = None, **settings: Any) -> None:
        """Check the settings.

        Args:
            description: of the data set.
            attribute: of regions, that is their category; not needed where they have one only.
            settings: of `SetFileFormat`.
        """
        super().__init__(description, **settings)
        self._attribute = attribute

    def index(self, file: Path) -> FileIndex:
        """See `SetFileFormat`."""
        found: list[tuple[str, int, int]] = []
        values: defaultdict[str, set[str]] = defaultdict(set)
        for key, image, start, end in read_entries(file, [_IMAGES]):
            if key.startswith("_via_") and key != _IMAGES:
                continue
            if not isinstance(image, dict) or not {"filename", "regions"} <= image.keys():
                raise InputError(
                    f"{file}: is no JSON of VIA 2, {key!r} is no image; export the annotations anew, as JSON"
                )
            if image["regions"]:
                found.append((image["filename"], start, end))
            for region in image["regions"]:
                for attribute, value in region["region_attributes"].items():
                    values[attribute].update(_chosen(value))
        return FileIndex.of_single(found, {attribute: sorted(chosen) for attribute, chosen in values.items()})

    def categories(self, file: Path, common: Any) -> Iterable[str]:
        """See `SetFileFormat`."""
        return common[self._category_attribute(file, common)] if common else ()

    def parse_image(self, file: Path, name: str, values: Iterator[bytes], common: Any) -> LabeledImage:
        """See `SetFileFormat`."""
        source = f"{file}, image {name!r}"
        attribute = self._category_attribute(file, common)
        regions = json.loads(next(values))["regions"]
        return LabeledImage([_shape(r, attribute, f"{source}, region {i}") for i, r in enumerate(regions)], source)

    def _category_attribute(self, file: Path, attributes: Iterable[str]) -> str:
        chosen = [name for name in attributes if self._attribute in (None, name)]
        if len(chosen) != 1:
            raise InputError(
                f"{file}: its regions have the attributes {', '.join(map(repr, attributes)) or '(none)'}; write which "
                f"is their category: 'attribute' of {self.where}"
            )
        return chosen[0]


def _chosen(value: Any) -> list[str]:
    """What was entered or chosen for an attribute; several of its checkboxes may be."""
    names = [name for name, is_checked in value.items() if is_checked] if isinstance(value, dict) else [value]
    return [str(name) for name in names if name]


def _shape(region: Mapping[str, Any], attribute: str, source: str) -> Shape:
    chosen = _chosen(region["region_attributes"].get(attribute))
    if len(chosen) != 1:
        raise InputError(
            f"{source}: has {len(chosen)} values of {attribute!r}, not one; choose one in VIA, or delete it"
        )
    return Shape(chosen[0], [_outline(region["shape_attributes"], source)])


def _outline(shape: Mapping[str, Any], source: str) -> Polygon:
    kind = shape["name"]
    if kind == "polygon":
        return np.stack([shape["all_points_x"], shape["all_points_y"]], axis=1).astype(np.float64)
    if kind == "rect":
        x, y = shape["x"], shape["y"]
        return rectangle(x, y, x + shape["width"], y + shape["height"])
    if kind == "circle":
        return ellipse(shape["cx"], shape["cy"], shape["r"], shape["r"])
    if kind == "ellipse":
        degrees = math.degrees(shape.get("theta", 0))
        return ellipse(shape["cx"], shape["cy"], shape["rx"], shape["ry"], degrees)
    raise InputError(
        f"{source}: is a {kind}, which has no area; draw a polygon, rectangle, circle or ellipse instead, or delete it "
        "in VIA"
    )
