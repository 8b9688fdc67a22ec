"""Polygons as Ultralytics writes them: a line for each, a class's number and corners as shares of width and height.

https://docs.ultralytics.com/datasets/segment/. Roboflow's exports for YOLO are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...utils.errors import InputError
from ...utils.files import read_text, read_yaml
from ..file_cache import file_state
from .label_format import LABEL_FORMATS, LabelSource, ListedImage
from .shape_format import ImageFileFormat
from .shapes import LabeledImage, Shape

if TYPE_CHECKING:
    from ..datasets.folder import Description

_IMAGES, _LABELS = "images", "labels"


@LABEL_FORMATS.register()
class Yolo(ImageFileFormat):
    """Polygons of one text file for each image. An empty file is of an image in which nothing is covered.

    A line that is a box is refused: nobody drew an outline.
    """

    name = "yolo"
    tool = "YOLO"

    def __init__(self, description: Description, *, names: object, **settings: Any) -> None:
        """Check the settings.

        Args:
            description: of the data set.
            names: the YAML file with `names`, mostly data.yaml, below the data set's root.
            settings: of `ImageFileFormat`.
        """
        super().__init__(description, **settings)
        self._names_file = description.root / str(names)

    def usual_file(self, image: Path) -> Path:
        """In labels/ beside the last images/ of the image's path; without such a folder beside the image."""
        parts = list(image.with_suffix(".txt").parts)
        if _IMAGES in parts[:-1]:
            parts[len(parts) - 1 - parts[::-1].index(_IMAGES, 1)] = _LABELS
        return Path(*parts)

    def category_names(self, images: Iterable[ListedImage]) -> list[str]:
        """See `ShapeFormat`; all that the file of names has."""
        return [self._names[number] for number in sorted(self._names)]

    def find(self, image: ListedImage) -> LabelSource:
        """See `LabelFormat`."""
        source = super().find(image)
        state = source.state and (source.state, file_state(str(self._names_file)))
        return LabelSource(source.name, state)

    def parse(self, image: ListedImage) -> LabeledImage:
        """See `ShapeFormat`."""
        file = self.file(image)
        shapes = []
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            if line.strip():
                shapes.append(self._shape(line.split(), f"{file}, line {number}"))
        return LabeledImage(shapes, str(file), relative=True)

    def _shape(self, words: list[str], source: str) -> Shape:
        category, corners = int(words[0]), np.array(words[1:], dtype=np.float64)
        if len(corners) == 4:
            raise InputError(f"{source}: is a box; segmentation needs outlines, of at least three corners: draw them")
        if len(corners) % 2:
            raise InputError(
                f"{source}: has {len(corners)} numbers after the class, which are no pairs of x and y; mend it"
            )
        if category not in self._names:
            raise InputError(
                f"{source}: has the class {category}, and {self._names_file} has no such name; add it there"
            )
        return Shape(self._names[category], [corners.reshape(-1, 2)])

    @cached_property
    def _names(self) -> dict[int, str]:
        if not self._names_file.is_file():
            raise InputError(f"{self._names_file}: is missing; put it there, or change 'names' of {self.where}")
        names: Any = read_yaml(self._names_file).get("names")
        if isinstance(names, list):
            names = dict(enumerate(names))
        if not isinstance(names, dict):
            raise InputError(f"{self._names_file}: has no 'names' of classes; add them: names: [first, second]")
        return {int(number): str(name) for number, name in names.items()}
