"""A JSON file in COCO's format that grows image by image, and of which little is in memory."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

from ..utils.errors import InputError
from ..utils.files import clear_write_errors, replace_file

_MIN_RATIO = 20
"""Least ratio of the time between two writes of the file to the time of a write."""


class CocoFile:
    """A file in COCO's format that is complete at any time, up to the last few images.

    The file grows with each image: writing it after each would take ever longer. What is added waits on the disk.
    """

    def __init__(self, file: Path, categories: Sequence[dict[str, Any]], keep: Callable[[PurePath], bool]) -> None:
        """Take over what earlier runs left; nothing is written yet.

        Args:
            file: may exist.
            categories: of all annotations, in COCO's format.
            keep: called with an image's file; whether to keep its annotations of an earlier run.

        Raises:
            InputError: the file is something else, or has annotations to keep of other categories.
        """
        self._file, self._categories = file, list(categories)
        self._last = {"images": 0, "annotations": 0}  # the highest ids
        with clear_write_errors(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
            self._parts = {name: tempfile.TemporaryFile(dir=file.parent) for name in self._last}  # noqa: SIM115
        self._written, self._cost = 0.0, 0.0
        if file.is_file():
            self._load(keep)

    def add(self, file: PurePath, size: Sequence[int], annotations: Iterable[dict[str, Any]]) -> None:
        """Add an image, and write the file if the last write was long enough ago.

        Args:
            file: the image's.
            size: (height, width) of the image.
            annotations: of the image, in COCO's format but for their ids and the image's.

        Raises:
            UnwritableError: there is no room on the disk.
        """
        image_id = self._last["images"] + 1
        image = {"id": image_id, "file_name": file.as_posix(), "height": size[0], "width": size[1]}
        with clear_write_errors(self._file):
            self._append("images", image)
            for number, annotation in enumerate(annotations, start=self._last["annotations"] + 1):
                self._append("annotations", {"id": number, "image_id": image_id, **annotation})
        if time.monotonic() - self._written >= _MIN_RATIO * self._cost:
            self.write()

    def write(self) -> None:
        """Write all images so far."""
        start = time.monotonic()
        replace_file(self._file, self._write)
        self._written = time.monotonic()
        self._cost = self._written - start

    def close(self) -> None:
        """Write all images, and give back the room that they took on the disk."""
        self.write()
        for part in self._parts.values():
            part.close()

    def _append(self, part: str, entry: dict[str, Any]) -> None:
        text = json.dumps(entry)
        self._parts[part].write(f"{',' if self._last[part] else ''}\n{text}".encode())
        self._last[part] = entry["id"]

    def _write(self, unfinished: Path) -> None:
        with unfinished.open("wb") as target:
            target.write(f'{{"info": {{}}, "categories": {json.dumps(self._categories)}'.encode())
            for name, part in self._parts.items():
                target.write(f', "{name}": ['.encode())
                part.seek(0)
                shutil.copyfileobj(part, target)  # which leaves it at its end
                target.write(b"]")
            target.write(b"}\n")

    def _load(self, keep: Callable[[PurePath], bool]) -> None:
        try:
            earlier = json.loads(self._file.read_text())
            images = [image for image in earlier["images"] if keep(PurePath(image["file_name"]))]
            kept = {image["id"] for image in images}
            annotations = [entry for entry in earlier["annotations"] if entry["image_id"] in kept]
            same = earlier["categories"] == self._categories
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._file}: is not in COCO's format; give another --output") from error
        if images and not same:
            raise InputError(f"{self._file}: has annotations of other classes; give another --output")
        for name, entries in (("images", images), ("annotations", annotations)):
            for entry in sorted(entries, key=lambda entry: int(entry["id"])):
                self._append(name, entry)
