"""Boxes in COCO's format."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

from ..errors import InputError
from ..files import write_text
from .deployed import Found

_SHARE = 20
"""Writing the file takes at most one part in so many of the time."""


class BoxesFile:
    """A JSON file that is whole at any time, with the boxes of almost all images so far.

    It grows with each image, so that writing it after each would take ever longer.
    """

    def __init__(self, file: Path, categories: Sequence[dict[str, Any]], keep: Callable[[PurePath], bool]) -> None:
        """Begin; nothing is written yet.

        Args:
            file: perhaps there, of earlier runs.
            categories: of all boxes, as COCO's format has them.
            keep: whether the boxes that an earlier run found in an image stay, by the image's file.

        Raises:
            InputError: boxes that are to stay cannot: the file is something else, or has other categories.
        """
        self._file = file
        self._content: dict[str, Any] = {"info": {}, "images": [], "annotations": [], "categories": list(categories)}
        if file.is_file():
            self._take_over(keep)
        self._image = max((image["id"] for image in self._content["images"]), default=0)
        self._box = max((box["id"] for box in self._content["annotations"]), default=0)
        self._written, self._cost = 0.0, 0.0

    def add(self, file: PurePath, size: tuple[int, ...], found: Found) -> None:
        """Take an image's boxes.

        Args:
            file: of the image.
            size: its height and width.
            found: on the CPU.
        """
        self._image += 1
        image = {"id": self._image, "file_name": file.as_posix(), "height": size[0], "width": size[1]}
        self._content["images"].append(image)
        for (x0, y0, x1, y1), score, category in zip(*(values.tolist() for values in found), strict=True):
            self._box += 1
            width, height = x1 - x0, y1 - y0
            self._content["annotations"].append(
                {
                    "id": self._box,
                    "image_id": self._image,
                    "category_id": category,
                    "bbox": [x0, y0, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": score,
                }
            )
        if time.monotonic() - self._written >= _SHARE * self._cost:
            self.write()

    def write(self) -> None:
        """Write all boxes so far."""
        begin = time.monotonic()
        write_text(self._file, json.dumps(self._content))
        self._written = time.monotonic()
        self._cost = self._written - begin

    def _take_over(self, keep: Callable[[PurePath], bool]) -> None:
        try:
            earlier = json.loads(self._file.read_text())
            images = [image for image in earlier["images"] if keep(PurePath(image["file_name"]))]
            kept = {image["id"] for image in images}
            boxes = [box for box in earlier["annotations"] if box["image_id"] in kept]
            same = earlier["categories"] == self._content["categories"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._file}: holds no boxes in COCO's format; give another --output") from error
        if images and not same:
            raise InputError(f"{self._file}: has boxes of other classes; give another --output")
        self._content |= {"images": images, "annotations": boxes}
