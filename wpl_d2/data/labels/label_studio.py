"""Label Studio's export as JSON: https://labelstud.io/guide/export.html, and its run lengths (thi.ng/rle-pack)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from ...utils.errors import InputError
from ..path_templates import IMAGE_SUFFIXES
from .json_entries import read_entries
from .label_format import LABEL_FORMATS
from .set_file_format import FileIndex, SetFileFormat
from .shapes import LabeledImage, Polygon, Region, Shape, ellipse, rectangle, turn

if TYPE_CHECKING:
    from ..datasets.folder import Description

_RECTANGLE = "width"
_AREAS = ("points", "radiusX", "rle", _RECTANGLE)  # in the value of a polygon, ellipse, brush, rectangle
_POINT = "keypointlabels"
_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")  # before the name of a file that was uploaded


@LABEL_FORMATS.register()
class LabelStudio(SetFileFormat):
    """Polygons, rectangles and ellipses, in percent of the image, and brush masks; other results are left out.

    A task without an annotation, or whose annotations were all skipped, is unlabeled; one that was submitted empty is
    labeled, and nothing in it is covered. Several annotations of a task are refused. Predictions are not read.
    """

    name = "label_studio"
    tool = "Label Studio"

    def __init__(self, description: Description, *, controls: object = None, **settings: Any) -> None:
        """Check the settings.

        Args:
            description: of the data set.
            controls: the names of the tags in the labeling interface whose results are read; by default all, but
                where a file has rectangles of one and outlines of another, it has to be said which are meant.
            settings: of `SetFileFormat`.

        Raises:
            InputError: a setting is wrong.
        """
        super().__init__(description, **settings)
        if controls is not None and (not isinstance(controls, list) or not controls):
            raise InputError(f"{self.where}: 'controls' is {controls!r}; write [name, name]")
        self._controls = controls and set(map(str, controls))

    def index(self, file: Path) -> FileIndex:
        """See `SetFileFormat`."""
        found: list[tuple[str, int, int]] = []
        controls: dict[str, tuple[list[str], list[str]]] = {}
        for _, task, start, end in read_entries(file):
            if not isinstance(task, dict) or "annotations" not in task:
                raise InputError(f"{file}: has a value without 'annotations'; export the project as JSON, not JSON-MIN")
            valid = [annotation for annotation in task["annotations"] if not annotation.get("was_cancelled")]
            if len(valid) > 1:
                raise InputError(
                    f"{file}, task {task.get('id')}: has {len(valid)} annotations; keep one of them in Label Studio"
                )
            if valid:
                found += [(name, start, end) for name in _names(task, file)]
                for result in valid[0]["result"]:
                    _add_to(controls, result)
        return FileIndex.of_single(found, controls)

    def categories(self, file: Path, common: Any) -> Iterable[str]:
        """See `SetFileFormat`."""
        if self._controls is None:
            rectangles = {name for name, (kinds, _) in common.items() if kinds == [_RECTANGLE]}
            outlines = common.keys() - rectangles
            if rectangles and outlines:
                raise InputError(
                    f"{file}: has rectangles of {_quoted(rectangles)} and outlines of {_quoted(outlines)}; write which "
                    f"tags' shapes are labels, or all: 'controls' of {self.where}"
                )
        return (label for name, (_, labels) in common.items() if self._is_read(name) for label in labels)

    def _is_read(self, control: str) -> bool:
        return self._controls is None or control in self._controls

    def parse_image(self, file: Path, name: str, values: Iterator[bytes], common: Any) -> LabeledImage:
        """See `SetFileFormat`."""
        task = json.loads(next(values))
        source = f"{file}, task {task.get('id')}"
        results = next(a for a in task["annotations"] if not a.get("was_cancelled"))["result"]
        sizes = {(r["original_height"], r["original_width"]) for r in results if "original_width" in r}
        if len(sizes) > 1:
            raise InputError(f"{source}: has results of images of different sizes; make a task of each image")
        read = [result for result in results if self._is_read(result.get("from_name", ""))]
        shapes = list(filter(None, (_shape(result, read, source) for result in read)))
        return LabeledImage(shapes, source, next(iter(sizes), None))


def _add_to(controls: dict[str, tuple[list[str], list[str]]], result: Mapping[str, Any]) -> None:
    """Add a result's kind of shape and its labels to those of its tag."""
    value = result.get("value", {})
    kind = next((name for name in _AREAS if name in value), None)
    labels = value.get(_key(result))
    if kind and labels:
        known = controls.setdefault(result.get("from_name", ""), ([], []))
        for seen, new in zip(known, ([kind], labels), strict=True):
            seen += [name for name in new if name not in seen]


def _names(task: Mapping[str, Any], file: Path) -> set[str]:
    """What the image of a task may be called: as Label Studio stores an upload, and as it was before."""
    data = task["data"]
    values = [data["image"]] if "image" in data else [value for value in data.values() if isinstance(value, str)]
    paths = {_file_path(value) for value in values}
    images = {path for path in paths if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES}
    if len(images) != 1:
        raise InputError(f"{file}, task {task.get('id')}: its 'data' names {len(images)} images; one is needed")
    path = PurePosixPath(images.pop())
    return {path.as_posix(), path.with_name(_UPLOAD.sub("", path.name, count=1)).as_posix()}


def _file_path(url: str) -> str:
    """The path of a file in what a task has for its image: a path, an address, or /data/local-files/?d=PATH."""
    parts = urlsplit(url)
    local = parse_qs(parts.query).get("d")
    return (local[0] if local else unquote(parts.path)).lstrip("/")


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def _key(result: Mapping[str, Any]) -> str:
    return str(result.get("type", "")).lower()


def _shape(result: Mapping[str, Any], results: Sequence[Mapping[str, Any]], source: str) -> Shape | None:
    """The shape of a result; None if it is none, such as a choice, or the same as another one but without a label."""
    value, key = result.get("value", {}), _key(result)
    source = f"{source}, result {result.get('id')!r}"
    if key == _POINT:
        raise InputError(f"{source}: is a point, which has no area; delete it in Label Studio, or draw an outline")
    if not any(name in value for name in _AREAS):
        return None
    labels = value.get(key)
    if labels is None and any(r.get("id") == result.get("id") and _key(r) in r.get("value", {}) for r in results):
        return None
    if not labels or len(labels) > 1:
        raise InputError(
            f"{source}: has {len(labels or ())} labels, not one; give it one in Label Studio, or delete it there"
        )
    if result.get("image_rotation", 0):
        raise InputError(f"{source}: was drawn on a turned image; turn the image's file, and label it anew")
    return Shape(labels[0], [_part(value, result["original_width"], result["original_height"])])


def _part(value: Mapping[str, Any], width: int, height: int) -> Polygon | Region:
    if "rle" in value:
        pixels = _decode(value["rle"]).reshape(height, width, -1)[:, :, -1]  # the brush's opacity
        return Region.of_pixels(pixels)
    scale = np.array([width, height]) / 100
    if "points" in value:
        return np.array(value["points"], dtype=np.float64).reshape(-1, 2) * scale
    x, y = np.array([value["x"], value["y"]]) * scale
    degrees = value.get("rotation", 0)
    if "radiusX" in value:
        x_radius, y_radius = np.array([value["radiusX"], value["radiusY"]]) * scale
        return ellipse(x, y, x_radius, y_radius, degrees)
    x1, y1 = (x, y) + np.array([value["width"], value["height"]]) * scale
    return turn(rectangle(x, y, x1, y1), degrees, (x, y))


class _Bits:
    """Reads numbers of any count of bits from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def read(self, count: int) -> int:
        first, end = self.place // 8, -(-(self.place + count) // 8)
        self.place += count
        number = int.from_bytes(self._data[first:end])
        return (number >> (8 * end - self.place)) & ((1 << count) - 1)

    def read_many(self, count: int, size: int) -> np.ndarray:
        """`count` numbers of at most 8 bits."""
        first, end = self.place // 8, -(-(self.place + count * size) // 8)
        bits = np.unpackbits(np.frombuffer(self._data, np.uint8, end - first, first))
        numbers = bits[self.place - 8 * first :][: count * size].reshape(count, size)
        self.place += count * size
        return np.packbits(numbers, axis=1)[:, 0] >> (8 - size)


def _decode(rle: Sequence[int]) -> np.ndarray:
    """The bytes that thi.ng/rle-pack has packed: runs of one value, and stretches of single ones.

    Raises:
        ValueError: it is something else.
    """
    bits = _Bits(bytes(rle))
    count, word = bits.read(32), bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    if word > 8:
        raise ValueError(f"values of {word} bits")
    out = np.zeros(count, np.uint8)
    start = 0
    while start < count:
        is_run = bits.read(1)
        end = start + 1 + bits.read(sizes[bits.read(2)])
        if bits.place > 8 * len(rle) or end > count:
            raise ValueError("run lengths that end too early or too late")
        out[start:end] = bits.read(word) if is_run else bits.read_many(end - start, word)
        start = end
    return out
