"""One mask for each class: not 0 where the class is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ...structures import IGNORE
from ...utils.checks import check_text
from ...utils.errors import InputError
from ..file_cache import file_state
from ..image_io import read_raw_mask
from ..path_templates import SLOT, fill
from .label_format import LABEL_FORMATS, LabelFormat, Labels, LabelSource, ListedImage

if TYPE_CHECKING:
    from ..datasets.folder import Description

_CLASS = "{class}"


@LABEL_FORMATS.register()
class ClassMasks(LabelFormat):
    """Files of two values: 0, and another one where the class is.

    A class whose file is missing is not in the image; without any file the image has no labels. Where classes overlap,
    the one that comes later in `classes` lies on top, and what "ignore" has a file for on all of them.
    """

    name = "class_masks"

    def __init__(self, description: Description, *, files: object, uncovered: object = None) -> None:
        """Check the settings.

        Args:
            description: of the data set.
            files: where the mask of an image and a class is, such as masks/{id}_{class}.png; or such a path, without
                {class}, by class.
            uncovered: a class, or "ignore", for pixels in no file; by default they are errors.

        Raises:
            InputError: a setting is wrong.
        """
        super().__init__(description)
        where = f"{self.where}: 'files'"
        if isinstance(files, dict):
            templates = {self.class_id(name, "'files'"): check_text(where, path) for name, path in files.items()}
        else:
            pattern = check_text(where, files)
            if _CLASS not in pattern:
                raise InputError(f"{where}: {files!r} has no {_CLASS}; write a path such as masks/{SLOT}_{_CLASS}.png")
            templates = {class_id: pattern.replace(_CLASS, name) for class_id, name in enumerate(description.classes)}
        for template in templates.values():
            if SLOT not in template:
                raise InputError(f"{where}: {template!r} has no {SLOT}; write a path such as masks/{SLOT}_crack.png")
        self._templates = dict(sorted(templates.items()))
        self._uncovered = None if uncovered is None else self.class_id(uncovered, "'uncovered'")

    def find(self, image: ListedImage) -> LabelSource:
        """The files of its classes, which messages call by the first."""
        files = self._files(image)
        there = {class_id: file_state(file) for class_id, file in files.items() if os.path.isfile(file)}
        return LabelSource(files[min(there or files)], there or None)

    def read(self, image: ListedImage) -> Labels:
        """Classes one upon the other."""
        files = {class_id: file for class_id, file in self._files(image).items() if os.path.isfile(file)}
        first = next(iter(files.values()))
        masks = {class_id: self._read_one(file) for class_id, file in files.items()}
        size = next(iter(masks.values())).shape
        result = np.full(size, IGNORE, dtype=np.uint8)
        covered = np.zeros(size, dtype=bool)
        for class_id, mask in masks.items():
            if mask.shape != size:
                raise InputError(f"{files[class_id]}: is not of the size of {first}; make them equal")
            result[mask] = class_id
            covered |= mask
        if self._uncovered is not None:
            result[~covered] = self._uncovered
        elif not covered.all():
            raise InputError(
                f"{first}: this and the masks of the other classes leave {100 * (1 - covered.mean()):.2g} % of the "
                f"pixels without a class; write into {self.where} what they are: `uncovered: ignore`, or a class"
            )
        return Labels(result)

    def _files(self, image: ListedImage) -> dict[int, str]:
        """By class id, whether they are there or not."""
        root = self.description.root
        return {class_id: str(root / fill(path, image.id)) for class_id, path in self._templates.items()}

    def _read_one(self, file: str) -> np.ndarray:
        values = read_raw_mask(file, self.description.exif, gray_colors=True)
        mask = values != 0
        if mask.any() and (values[mask] != values[mask][0]).any():
            raise InputError(
                f"{file}: holds the values {np.unique(values)[:5].tolist()} (the first five at most); the mask of one "
                "class has 0 and one other value: save it so, without smooth edges"
            )
        return mask
