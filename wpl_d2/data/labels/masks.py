"""Masks of one value a pixel that is no class id: other values, an offset, gray that is stored as colors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...structures import IGNORE
from ...utils.checks import check_integer
from ...utils.errors import InputError
from ..image_io import read_raw_mask
from .label_format import LABEL_FORMATS, LabelFormat, Labels, LabelSource, ListedImage
from .look_up import UnlistedValuesError, look_back, look_up

if TYPE_CHECKING:
    from ..datasets.folder import Description


@LABEL_FORMATS.register()
class Masks(LabelFormat):
    """Gray masks of 8 or 16 bits, or stored as RGB with equal channels; of palette images the indices count.

    What is `ignore` in the YAML has no class, unless `values` give it one.
    """

    name = "masks"
    uses_mask = True

    def __init__(
        self, description: Description, *, values: object = None, offset: object = 0, other: object = None
    ) -> None:
        """Check the settings.

        Args:
            description: of the data set.
            values: a class, or "ignore" for none, for each value.
            offset: in place of that, what makes a value a class id when it is added.
            other: a class, or "ignore", for all other values; by default they are errors.

        Raises:
            InputError: a setting is wrong.
        """
        super().__init__(description)
        self._table = self._listed(values) if values is not None else self._moved(offset)
        if values is not None and offset != 0:
            raise InputError(f"{self.where}: has both 'values' and 'offset'; remove one")
        self._table.setdefault(description.ignore, IGNORE)
        self._other = None if other is None else self.class_id(other, "'other'")

    def find(self, image: ListedImage) -> LabelSource:
        """The file that `mask`, or the list's line, names."""
        return LabelSource.of_file(image.mask)

    def read(self, image: ListedImage) -> Labels:
        """Values, looked up."""
        values = read_raw_mask(image.mask, self.description.exif, gray_colors=True)
        try:
            return Labels(look_up(values, self._table, self._other))
        except UnlistedValuesError as error:
            raise InputError(
                f"{image.mask}: holds the values {error}, which {self.where} does not list; list them in its 'values', "
                "or write `other: ignore` there"
            ) from None

    def encode(self, mask: np.ndarray) -> np.ndarray:
        """See `LabelFormat`; (H, W) uint8, or uint16 if values are larger."""
        values = look_back(mask, self._table, self.where)
        return values.astype(np.uint8 if max(self._table) <= np.iinfo(np.uint8).max else np.uint16)

    def _listed(self, values: object) -> dict[int, int]:
        if not isinstance(values, dict) or not values:
            raise InputError(f"{self.where}: 'values': {values!r} is no table; write {{0: background, 255: crack}}")
        return {
            check_integer(f"{self.where}: 'values'", value): self.class_id(name, f"'values': {value}")
            for value, name in values.items()
        }

    def _moved(self, offset: object) -> dict[int, int]:
        first = check_integer(f"{self.where}: 'offset'", offset)
        table = {class_id - first: class_id for class_id in range(len(self.description.classes))}
        if self.description.ignore in table:
            raise InputError(
                f"{self.description.path}: 'ignore' is {self.description.ignore}, which is "
                f"{self.description.classes[table[self.description.ignore]]!r} in 'labels'; give it another value"
            )
        return table
