"""Which files of a folder hold labels of annotation tools: by what is in them."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from ...utils.errors import InputError
from ...utils.files import is_system_file, read_yaml
from ..labels.json_entries import read_entries
from .files import evenly

_PROBES = 20  # of the files of a folder with one suffix
_BOXES = "boxes"
_EACH_IMAGE = ("labelme", "yolo")
"""The formats of which each image has a file of its own."""
_LISTS = ("images", "annotations", "_via_img_metadata")
_MAX_LINES = 50


@dataclass(frozen=True)
class Annotations:
    """Labels that a tool wrote.

    Attributes:
        format: the name of a `LabelFormat`.
        files: below the root.
        settings: what `labels` of a data set's YAML says of them beside files, categories and `uncovered`.
    """

    format: str
    files: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def for_each_image(self) -> bool:
        """Whether each image has a file of its own."""
        return self.format in _EACH_IMAGE

    @property
    def pattern(self) -> str:
        """A pattern that fits the files."""
        first = PurePosixPath(self.files[0])
        if len(self.files) == 1:
            return str(first)
        return f"*{first.name}" if len({PurePosixPath(f).name for f in self.files}) == 1 else f"*{first.suffix}"


def find_annotations(root: Path, pattern: str = "*") -> tuple[list[Annotations], list[str]]:
    """Look for labels of annotation tools.

    Args:
        root: the folder.
        pattern: of the paths of files below it.

    Returns:
        those of each tool, and files with boxes that have no outlines, which are no labels here.

    Raises:
        InputError: the names of their classes are missing.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for (_, suffix), paths in _label_files(root, pattern).items():
        kinds = {path: _KIND_OF[suffix](root / path) for path in evenly(paths, _PROBES)}
        most = Counter(kind for kind in kinds.values() if kind).most_common(1)
        if most and most[0][0] in _EACH_IMAGE:
            found[most[0][0]] += paths
            continue
        for path in paths:
            kind = kinds[path] if path in kinds else _KIND_OF[suffix](root / path)
            if kind:
                found[kind].append(path)
    boxes = found.pop(_BOXES, [])
    return [Annotations(kind, tuple(files), _settings(root, kind, files)) for kind, files in found.items()], boxes


def _label_files(root: Path, pattern: str) -> dict[tuple[str, str], list[str]]:
    """The files that may be labels, by folder and suffix."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for folder, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(names):
            path, suffix = Path(folder, name).relative_to(root), PurePosixPath(name).suffix.lower()
            if suffix in _KIND_OF and not is_system_file(path) and fnmatch(path.as_posix(), pattern):
                found[folder, suffix].append(path.as_posix())
    return found


def _kind_of_json(file: Path) -> str:
    seen: set[str] = set()
    try:
        for key, value, *_ in read_entries(file, _LISTS):
            seen.add(key)
            kind = _kind_of_entry(key, value) if isinstance(value, dict) else ""
            if kind:
                return kind
            if {"shapes", "imagePath"} <= seen:
                return "labelme"
    except (InputError, OSError):
        return ""
    return _BOXES if {"images", "annotations", "categories"} <= seen else ""


def _kind_of_entry(key: str, value: dict[str, Any]) -> str:
    if key == "annotations" and "segments_info" in value:
        return "coco_panoptic"
    if key == "annotations" and value.get("segmentation") and "category_id" in value and "keypoints" not in value:
        return "coco"
    if key == "_via_img_metadata" or {"filename", "regions"} <= value.keys():
        return "via"
    return "label_studio" if key == "" and {"annotations", "data"} <= value.keys() else ""


def _kind_of_xml(file: Path) -> str:
    try:
        for _, element in ElementTree.iterparse(file, events=("start",)):
            return {"annotations": "cvat", "annotation": _BOXES}.get(element.tag, "")
    except (ElementTree.ParseError, OSError):
        pass
    return ""


def _kind_of_text(file: Path) -> str:
    """YOLO's if all of its first lines are a class and shares of width and height."""
    kinds = set()
    try:
        with file.open(encoding="utf-8") as stream:
            for line, _ in zip(stream, range(_MAX_LINES), strict=False):
                first, *shares = line.split() or [""]
                if not first:
                    continue
                if not first.isdecimal() or not all(0 <= float(share) <= 1 for share in shares):
                    return ""
                kinds.add(_BOXES if len(shares) == 4 else "yolo" if len(shares) > 5 and len(shares) % 2 == 0 else "")
    except (ValueError, OSError):
        return ""
    return "yolo" if "yolo" in kinds and "" not in kinds else _BOXES if kinds == {_BOXES} else ""


_KIND_OF = {".json": _kind_of_json, ".xml": _kind_of_xml, ".txt": _kind_of_text}


def _settings(root: Path, kind: str, files: Sequence[str]) -> dict[str, Any]:
    if kind == "coco_panoptic":
        first = next(e.value["file_name"] for e in read_entries(root / files[0], _LISTS) if e.key == "annotations")
        folders = [file.parent.relative_to(root).as_posix() for file in sorted(root.rglob(first))]
        # As in COCO's own, panoptic_val2017 beside panoptic_val2017.json.
        folders.sort(key=lambda folder: PurePosixPath(folder).name != PurePosixPath(files[0]).stem)
        if not folders:
            raise InputError(f"{root / files[0]}: names the mask {first}, which is not there; put its folder beside it")
        return {"masks": folders[0]}
    if kind != "yolo":
        return {}
    for file in sorted((*root.rglob("*.yaml"), *root.rglob("*.yml")), key=lambda file: (len(file.parts), file)):
        try:
            if isinstance(read_yaml(file).get("names"), list | dict):
                return {"names": file.relative_to(root).as_posix()}
        except InputError:
            continue
    raise InputError(
        f"{root / files[0]}: is of YOLO, and no YAML of the folder has the names of its classes; put data.yaml there, "
        "with `names: [first, second]`"
    )
