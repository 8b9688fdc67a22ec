"""COCO's JSON of instances: https://cocodataset.org/#format-data; also what Roboflow and most tools export as COCO."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ...utils.errors import InputError
from .json_entries import read_entries
from .label_format import LABEL_FORMATS
from .set_file_format import FileIndex, SetFileFormat
from .shapes import LabeledImage, Polygon, Region, Shape

_LISTS = ("images", "annotations", "categories")


@LABEL_FORMATS.register()
class Coco(SetFileFormat):
    """Polygons and run lengths, compressed or not, of one file or several.

    Categories are told apart by name: each file has ids of its own. An image that a file lists without an annotation is
    labeled, and nothing in it is covered. An annotation that is a box alone is refused: nobody drew an outline. Where
    all annotations of a file are crowds, they are instances: CVAT and datumaro write every mask as a crowd.
    """

    name = "coco"
    tool = "COCO"

    def index(self, file: Path) -> FileIndex:
        """See `SetFileFormat`."""
        contents = _Contents(file)
        for key, value, start, end in read_entries(file, _LISTS):
            if key == "images":
                contents.add_image(value, start, end)
            elif key == "annotations":
                contents.add_annotation(value, start, end)
            elif key == "categories":
                contents.categories[value["id"]] = str(value["name"])
        return contents.as_index()

    def categories(self, file: Path, common: Any) -> Iterable[str]:
        """See `SetFileFormat`."""
        return (name for _, name in common["categories"])

    def parse_image(self, file: Path, name: str, values: Iterator[bytes], common: Any) -> LabeledImage:
        """See `SetFileFormat`."""
        names = dict(common["categories"])
        record = json.loads(next(values))
        source = f"{file}, image {name!r}"
        size = (int(record["height"]), int(record["width"])) if "height" in record and "width" in record else None
        shapes = [_shape(json.loads(value), names, common["has_crowds"], source) for value in values]
        sizes = {tuple(part.rle["size"]) for shape in shapes for part in shape.parts if isinstance(part, Region)}
        if len(sizes | ({size} if size else set())) > 1:
            raise InputError(
                f"{source}: has run lengths for images of other sizes, (height, width) {sizes}; export it anew"
            )
        return LabeledImage(shapes, source, size or next(iter(sizes), None))


class _Contents:
    """The places of a file's images and annotations, by the ids of images, in any order."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._names: dict[Any, str] = {}
        self._numbers: dict[Any, int] = {}  # of an image, by its id
        # Of each image and annotation, in the order of the file.
        self._image_of, self._spans, self._is_annotation = array("q"), array("q"), array("b")
        self._used: dict[Any, Any] = {}  # the first annotation of a category
        self._has_crowds, self._has_instances = False, False
        self.categories: dict[Any, str] = {}

    def add_image(self, record: Mapping[str, Any], start: int, end: int) -> None:
        image_id = self._id(record, "id", "an image")
        if image_id in self._names:
            raise InputError(f"{self._file}: has the image id {image_id!r} twice; give each image an id of its own")
        self._names[image_id] = str(record["file_name"])
        self._add(image_id, start, end, False)

    def add_annotation(self, record: Mapping[str, Any], start: int, end: int) -> None:
        image_id = self._id(record, "image_id", "an annotation")
        self._used.setdefault(self._id(record, "category_id", "an annotation"), record.get("id"))
        if record.get("iscrowd"):
            self._has_crowds = True
        else:
            self._has_instances = True
        self._add(image_id, start, end, True)

    def _id(self, record: Mapping[str, Any], key: str, what: str) -> Any:
        if record.get(key) is None:
            raise InputError(f"{self._file}: {what} has no {key!r}: {str(record)[:80]}...; export the file anew")
        return record[key]

    def _add(self, image_id: Any, start: int, end: int, is_annotation: bool) -> None:
        self._image_of.append(self._numbers.setdefault(image_id, len(self._numbers)))
        self._spans.extend((start, end))
        self._is_annotation.append(is_annotation)

    def as_index(self) -> FileIndex:
        """Check what belongs together, and sort it by image."""
        if not self._names:
            raise InputError(f"{self._file}: has no 'images'; give a file of COCO's format that labels some")
        absent = [image_id for image_id in self._numbers if image_id not in self._names]
        if absent:
            raise InputError(
                f"{self._file}: has annotations of the image id {absent[0]!r} ({len(absent)} such ids), but no image "
                "of it; add it to 'images', or remove them"
            )
        for category, annotation in self._used.items():
            if category not in self.categories:
                raise InputError(
                    f"{self._file}: annotation {annotation!r} has the category id {category!r}, which is not in "
                    "'categories'; add it there, or export the file anew"
                )
        numbers = np.array(self._image_of, dtype=np.int64)
        spans = np.array(self._spans, dtype=np.int64).reshape(-1, 2)
        # The image's own record comes first, wherever it is in the file.
        order = np.lexsort((np.array(self._is_annotation), numbers))
        ends = np.cumsum(np.bincount(numbers, minlength=len(self._numbers)))
        names = [self._names[image_id] for image_id in self._numbers]
        used = [(category, name) for category, name in self.categories.items() if category in self._used]
        common = {"categories": used, "has_crowds": self._has_crowds and self._has_instances}
        return FileIndex(names, ends, spans[order], common)


def _shape(annotation: Mapping[str, Any], names: Mapping[Any, str], has_crowds: bool, source: str) -> Shape:
    source = f"{source}, annotation {annotation.get('id')!r}"
    outline = annotation.get("segmentation")
    if not outline:
        raise InputError(
            f"{source}: is a box without an outline, and segmentation needs outlines; draw it, or remove the annotation"
        )
    parts: Any
    if isinstance(outline, Mapping):
        parts = [Region(_run_lengths(outline, source))]
    else:
        # Some tools write a single polygon without the list around it.
        lists = outline if isinstance(outline[0], list) else [outline]
        parts = [_polygon(numbers, source) for numbers in lists]
    return Shape(names[annotation["category_id"]], parts, crowd=has_crowds and bool(annotation.get("iscrowd")))


def _polygon(numbers: list[float], source: str) -> Polygon:
    if len(numbers) % 2:
        raise InputError(f"{source}: has a polygon of {len(numbers)} numbers, which are no pairs of x and y; redraw it")
    return np.array(numbers, dtype=np.float64).reshape(-1, 2)


def _run_lengths(outline: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Run lengths, compressed."""
    height, width = outline["size"]
    counts = outline["counts"]
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts.encode()}
    if sum(counts) != height * width:
        raise InputError(
            f"{source}: has run lengths of {sum(counts)} pixels, and a size of {width} x {height}; export it anew"
        )
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
