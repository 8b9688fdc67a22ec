"""CVAT's XML for images, version 1.1: https://docs.cvat.ai/docs/manual/advanced/xml_format/."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from ...utils.errors import InputError
from .label_format import LABEL_FORMATS
from .set_file_format import FileIndex, SetFileFormat
from .shapes import LabeledImage, Polygon, Region, Shape, ellipse, rectangle, turn

_END = len("</image>")
_AREAS = ("polygon", "box", "ellipse", "mask")
_VERSION = "1.1"


@LABEL_FORMATS.register()
class Cvat(SetFileFormat):
    """Polygons, boxes and ellipses, also turned ones, and masks; what has no area is refused, and tags are left out.

    CVAT's `z_order` goes before the rule that smaller shapes lie on top. The file lists all images of a task, also
    those that nobody has looked at: an image without shapes is unlabeled.
    """

    name = "cvat"
    tool = "CVAT"

    def index(self, file: Path) -> FileIndex:
        """See `SetFileFormat`."""
        contents = _Contents(file)
        parser = expat.ParserCreate()
        parser.StartElementHandler = lambda tag, attributes: contents.start(tag, attributes, parser.CurrentByteIndex)
        parser.EndElementHandler = lambda tag: contents.end(tag, parser.CurrentByteIndex)
        parser.CharacterDataHandler = contents.text
        try:
            with file.open("rb") as stream:
                parser.ParseFile(stream)
        except expat.ExpatError as error:
            raise InputError(f"{file}: is not XML, or not whole ({error}); export it anew") from None
        if contents.version != _VERSION:
            raise InputError(
                f"{file}: is of version {contents.version!r} of CVAT's XML, and only {_VERSION!r} is known; export it "
                f"as 'CVAT for images {_VERSION}'"
            )
        return FileIndex.of_single(contents.images, sorted(contents.labels))

    def categories(self, file: Path, common: Any) -> Iterable[str]:
        """See `SetFileFormat`."""
        return common

    def parse_image(self, file: Path, name: str, values: Iterator[bytes], common: Any) -> LabeledImage:
        """See `SetFileFormat`."""
        image = ElementTree.fromstring(next(values))
        source = f"{file}, image {name!r}"
        shapes = [_shape(element, source) for element in image if element.tag != "tag"]
        return LabeledImage(shapes, source, (int(image.attrib["height"]), int(image.attrib["width"])))


class _Contents:
    """The places of the images with shapes in a file, filled in by its parser."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._open: list[str] = []
        self._image = ("", 0)
        self._has_shapes = False
        self.version = ""
        self.images: list[tuple[str, int, int]] = []
        self.labels: set[str] = set()

    def start(self, tag: str, attributes: dict[str, str], place: int) -> None:
        self._open.append(tag)
        if self._open[0] != "annotations":
            raise InputError(f"{self._file}: is not CVAT's XML, it begins with <{tag}>; give what CVAT exports")
        if self._open == ["annotations", "track"]:
            raise InputError(
                f"{self._file}: is CVAT's XML for videos; export the task as 'CVAT for images {_VERSION}', which has "
                "the shapes of each frame"
            )
        if self._open == ["annotations", "image"]:
            self._image, self._has_shapes = (attributes["name"], place), False
        elif self._open[:-1] == ["annotations", "image"] and tag != "tag":
            self._has_shapes = True
            self.labels.add(attributes["label"])

    def end(self, tag: str, place: int) -> None:
        if self._open == ["annotations", "image"] and self._has_shapes:
            self.images.append((*self._image, place + _END))
        self._open.pop()

    def text(self, text: str) -> None:
        if self._open == ["annotations", "version"]:
            self.version += text


def _shape(element: ElementTree.Element, source: str) -> Shape:
    label = element.attrib["label"]
    if element.tag not in _AREAS:
        raise InputError(
            f"{source}: a {element.tag} of {label!r} has no area; draw a polygon, mask, box or ellipse instead, or "
            "delete it in CVAT"
        )
    return Shape(label, [_part(element)], layer=int(element.get("z_order", "0")))


def _part(element: ElementTree.Element) -> Polygon | Region:
    def number(name: str, default: str | None = None) -> float:
        return float(element.attrib[name] if default is None else element.get(name, default))

    if element.tag == "polygon":
        return np.array([pair.split(",") for pair in element.attrib["points"].split(";")], dtype=np.float64)
    if element.tag == "box":
        x0, y0, x1, y1 = map(number, ("xtl", "ytl", "xbr", "ybr"))
        return turn(rectangle(x0, y0, x1, y1), number("rotation", "0"), ((x0 + x1) / 2, (y0 + y1) / 2))
    if element.tag == "ellipse":
        return ellipse(number("cx"), number("cy"), number("rx"), number("ry"), number("rotation", "0"))
    width, height = int(element.attrib["width"]), int(element.attrib["height"])
    runs = np.array(element.attrib["rle"].split(","), dtype=np.int64)
    pixels = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)  # row by row, the first run is outside
    return Region.of_pixels(pixels, int(element.attrib["left"]), int(element.attrib["top"]))
