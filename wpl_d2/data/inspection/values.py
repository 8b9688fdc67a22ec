"""What the values of masks, or their colors, stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...structures import IGNORE
from ...utils.errors import InputError
from .class_names import read_class_names

if TYPE_CHECKING:
    from ..labels import LabelFormat
    from .layout import Layout

_DEEP_IGNORE = 65535
_MAX_LEVELS = 16
"""More values with gaps between them are shades: of smoothed masks, of pictures, of instances."""
_MAX_COLORS = 64
BACKGROUND = "background"
MIN_COVERED = 0.9
"""If shapes cover less of the images, in the median, what none covers is the background; else it was left out."""


class AmbiguousLabelsError(InputError):
    """Labels can be read in several ways.

    Attributes:
        what: file or folder, and what was seen.
        readings: for each the argument of `propose`, and of the command of the same name, and what it means.
    """

    def __init__(self, where: object, what: str, readings: Mapping[tuple[str, str], str]) -> None:
        """Name the readings.

        Args:
            where: file or folder.
            what: was seen.
            readings: see the class.
        """
        self.what, self.readings = f"{where}: {what}", readings
        ways = ", or ".join(f"{text}: --{name} {value}" for (name, value), text in readings.items())
        super().__init__(f"{self.what}; say which it is: {ways}")


@dataclass(frozen=True)
class Meaning:
    """What the values of masks stand for.

    Attributes:
        values: that of each class, by class id; of colors see `pack_colors`.
        are_ids: whether each value is the class id itself.
        ignore: the value for "no class".
    """

    values: tuple[int, ...]
    are_ids: bool
    ignore: int


def meaning_of_labels(labels: LabelFormat, covered: float) -> Meaning:
    """Of labels as a format reads them: class ids, before which there is a background if shapes leave much uncovered.

    Args:
        labels: the format.
        covered: share of the pixels that shapes cover.
    """
    description = labels.description
    ids = tuple(range(len(description.classes)))
    if labels.uses_mask:
        return Meaning(ids, True, description.ignore)
    uncovered = covered < MIN_COVERED and not find_background(description.classes)
    return Meaning((IGNORE, *ids) if uncovered else ids, False, IGNORE)


def find_background(classes: Iterable[str]) -> str:
    """The class that is called background, or ""."""
    return next((name for name in classes if name.strip("_").casefold() == BACKGROUND), "")


def find_meaning(layout: Layout, values: Mapping[str, np.ndarray], ignore: str = "") -> Meaning:
    """Tell class ids from other values.

    Args:
        layout: of the masks.
        values: in the mask of each image.
        ignore: the value for "no class" if the user said it, "none" if there is none.

    Raises:
        AmbiguousLabelsError: it is open whether 255 is a class.
        InputError: they are not classes, or one alone.
    """
    root = layout.root
    images = Counter(int(value) for of_mask in values.values() for value in of_mask)
    crowded = root / layout.masks[max(values, key=lambda image: len(values[image]))]
    if layout.colored:
        return _colors(root, images, crowded)
    void = next((value for value in (_DEEP_IGNORE, IGNORE) if value in images), IGNORE)
    if ignore:
        void = int(ignore) if ignore.isdecimal() else -1
    ids = sorted(set(images) - {void})
    _check_classes(root, images, ids, void, crowded)
    if void == IGNORE and void in images and not ignore and (len(ids) == 1 or _has_gaps(ids)):
        levels = [*ids, void]
        if not _are_even(levels):
            raise AmbiguousLabelsError(
                crowded,
                f"the masks hold the values {_shown(levels)}",
                {("ignore", "255"): "255 is no class", ("ignore", "none"): "255 is a class"},
            )
        ids, void = levels, IGNORE
    if not _has_gaps(ids):
        return Meaning(tuple(range(ids[-1] + 1)), True, void if void >= 0 else IGNORE)
    if len(ids) > _MAX_LEVELS:
        raise InputError(
            f"{crowded}: the masks hold {len(ids)} values with gaps, {_shown(ids)}, up to {ids[-1]}, as shades have; "
            "save them without smooth edges, a value for each class"
        )
    return Meaning(tuple(ids), False, void if void >= 0 else IGNORE)


def _has_gaps(ids: list[int]) -> bool:
    return ids[-1] > 2 * len(ids) + 16


def _are_even(levels: list[int]) -> bool:
    """Whether values are as far from each other as whole numbers can be, from 0 to 255."""
    step = IGNORE / (len(levels) - 1)
    return levels[0] == 0 and all(abs(b - a - step) <= 1 for a, b in pairwise(levels))


def _check_classes(root: Path, images: Counter[int], ids: list[int], void: int, crowded: Path) -> None:
    if not ids:
        raise InputError(f"{root}: all masks hold {void} = no class alone; save them with class ids from 0 on")
    if ids[0] < 0 or ids[-1] >= _DEEP_IGNORE or len(ids) > IGNORE or (ids[-1] >= IGNORE and len(ids) > _MAX_LEVELS):
        raise InputError(
            f"{crowded}: the masks hold {len(ids)} values from {ids[0]} to {ids[-1]}; class ids are 0 to {IGNORE - 1}: "
            "give another folder if these are instances or depths, else save the masks with class ids"
        )
    if len(ids) == 1 and (ids[0] or void not in images or void != IGNORE):
        alone = _shown([*ids, void] if void in images else ids)
        raise InputError(
            f"{crowded}: all masks hold {alone} alone, so that there is nothing to tell it from; add masks that show "
            "other classes"
        )


def pack_colors(colors: np.ndarray) -> np.ndarray:
    """(..., 3) red, green and blue as red * 65536 + green * 256 + blue."""
    return colors.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1])


def unpack_color(value: int) -> tuple[int, int, int]:
    """The inverse of `pack_colors`."""
    return value >> 16, value >> 8 & 255, value & 255


def _colors(root: Path, images: Counter[int], crowded: Path) -> Meaning:
    found = sorted(images)
    if len(found) < 2:
        raise InputError(f"{crowded}: all masks have one color alone; add masks that show other classes")
    if len(found) > _MAX_COLORS:
        raise InputError(
            f"{crowded}: the masks have {len(found)} colors, as smooth edges and pictures have; export masks without "
            "smooth edges, or say which files are masks: --masks 'labels/*'"
        )
    named = read_class_names(root, len(found))
    if named is None or not named.colors:
        return Meaning(tuple(found), False, IGNORE)
    listed = pack_colors(np.array(named.colors)).tolist()
    for value in found:
        if value not in listed:
            raise InputError(
                f"{crowded}: masks have the color {unpack_color(value)}, which is not among the classes, "
                f"{named.source}; add it there, or export masks without smooth edges"
            )
    return Meaning(tuple(listed), False, IGNORE)


def _shown(values: list[int]) -> str:
    return ", ".join(map(str, values[:6]))
