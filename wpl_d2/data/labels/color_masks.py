"""Masks whose colors are the classes, as Labelbox, CVAT and Supervisely export them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...utils.checks import Color, check_color
from ...utils.errors import InputError
from ..image_io import read_color_mask
from .label_format import LABEL_FORMATS, LabelFormat, Labels, LabelSource, ListedImage
from .look_up import UnlistedValuesError, look_back, look_up

if TYPE_CHECKING:
    from ..datasets.folder import Description


@LABEL_FORMATS.register()
class ColorMasks(LabelFormat):
    """RGB by a table; of palette images the palette's colors count. Opacity is not looked at."""

    name = "color_masks"
    uses_mask = True

    def __init__(self, description: Description, *, colors: object = None, other: object = None) -> None:
        """Check the settings.

        Args:
            description: of the data set.
            colors: [r, g, b], or a list of such, for each class or "ignore"; by default `colors` of the YAML.
            other: a class, or "ignore", for all other colors; by default they are errors.

        Raises:
            InputError: a setting is wrong.
        """
        super().__init__(description)
        self._table: dict[int, int] = {}
        for name, color in self._pairs(colors):
            code, class_id = _encode(np.array(color)).item(), self.class_id(name, "'colors'")
            if self._table.setdefault(code, class_id) != class_id:
                raise InputError(f"{self.where}: 'colors': {list(color)} is the color of two classes; change one")
        self._other = None if other is None else self.class_id(other, "'other'")

    def _pairs(self, colors: object) -> list[tuple[object, Color]]:
        where = f"{self.where}: 'colors'"
        if colors is None:
            if not self.description.colors:
                raise InputError(f"{where}: is missing; write {{crack: [255, 0, 0]}}, or 'colors' beside 'classes'")
            return list(zip(self.description.classes, self.description.colors, strict=True))
        if not isinstance(colors, dict) or not colors:
            raise InputError(f"{where}: {colors!r} is no table; write {{background: [0, 0, 0], crack: [255, 0, 0]}}")
        pairs = []
        for name, value in colors.items():
            several = isinstance(value, list) and value and isinstance(value[0], list)
            pairs += [(name, check_color(f"{where}: {name}", color)) for color in (value if several else [value])]
        return pairs

    def find(self, image: ListedImage) -> LabelSource:
        """The file that `mask`, or the list's line, names."""
        return LabelSource.of_file(image.mask)

    def read(self, image: ListedImage) -> Labels:
        """Colors, looked up."""
        codes = _encode(read_color_mask(image.mask, self.description.exif))
        try:
            return Labels(look_up(codes, self._table, self._other, _show))
        except UnlistedValuesError as error:
            raise InputError(
                f"{image.mask}: holds the colors {error}, which {self.where} does not list; list them in its 'colors', "
                "or write `other: ignore` there; if they are blends at edges, export masks without smooth edges"
            ) from None

    def encode(self, mask: np.ndarray) -> np.ndarray:
        """See `LabelFormat`; (H, W, 3) uint8."""
        return _decode(look_back(mask, self._table, self.where))


def _decode(codes: np.ndarray) -> np.ndarray:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1).astype(np.uint8)


def _encode(colors: np.ndarray) -> np.ndarray:
    """(..., 3) as one integer each."""
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _show(code: int) -> str:
    return str([code >> 16, code >> 8 & 255, code & 255])
