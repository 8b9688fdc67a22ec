"""Masks of which each shows one class: a file for each class of an image."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ...utils.errors import InputError
from ..image_io import read_raw_mask
from ..path_templates import SLOT
from .files import Family, evenly
from .pairing import find_templates, pair_masks

_CLASS = "{class}"
_PROBES = 20


@dataclass(frozen=True)
class ClassFiles:
    """Where the masks of classes are.

    Attributes:
        classes: their names.
        image: template of the images.
        files: of the masks, with the class left open.
    """

    classes: tuple[str, ...]
    image: str
    files: str


def find_class_masks(root: Path, images: Sequence[str], families: Sequence[Family]) -> ClassFiles | None:
    """Look for masks of two values, of which an image has several that are called as classes.

    Args:
        root: of the paths.
        images: below it.
        families: of masks. Classes are the ends of the names in one folder, or the folders of equal names.
    """
    groups: dict[tuple[str, ...], dict[str, Family]] = defaultdict(dict)
    for family in families:
        folder = PurePosixPath(family.folder)
        if family.tail:
            groups["tail", family.folder, family.suffix, family.tail[0]][family.tail[1:]] = family
        groups["folder", str(folder.parent), family.suffix, family.tail][folder.name] = family
    for (kind, *_), of_class in groups.items():
        found = _check(root, images, of_class, kind) if len(of_class) > 1 else None
        if found:
            return found
    return None


def _check(root: Path, images: Sequence[str], of_class: Mapping[str, Family], kind: str) -> ClassFiles | None:
    """What a group of families is, if they are of the same images and hold two values."""
    try:
        pairs = {name: pair_masks(root, images, family.paths)[0] for name, family in of_class.items()}
    except InputError:  # several masks of an image are of one class
        return None
    shared = Counter(image for of_images in pairs.values() for image in of_images)
    if max(shared.values(), default=0) < 2 or not all(_are_binary(root, family) for family in of_class.values()):
        return None
    name, family = max(of_class.items(), key=lambda item: len(item[1].files))
    image, mask = find_templates(root, pairs[name], [image for image in images if image not in pairs[name]])
    old, new = f"{SLOT}{family.tail}", f"{SLOT}{family.tail[:1]}{_CLASS}"
    if kind == "folder":
        old, new = f"{name}/{SLOT}", f"{_CLASS}/{SLOT}"
    return ClassFiles(tuple(sorted(of_class)), image, mask.replace(old, new)) if old in mask else None


def _are_binary(root: Path, family: Family) -> bool:
    values = [np.unique(read_raw_mask(root / path, gray_colors=True)) for path in evenly(family.paths, _PROBES)]
    return all(len(found) <= 2 and (len(found) == 1 or found[0] == 0) for found in values)
