"""Which files of a folder are images and which are masks: by what is in them, and by names that go together."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...utils.files import is_system_file
from ..image_header import bits_per_channel, lossy_format
from ..image_io import read_image
from ..path_templates import IMAGE_SUFFIXES
from ..pixel_values import decode_values
from ..windows import huge_size, middle_window, read_window

_Item = TypeVar("_Item")

_TAIL = re.compile(r"(?<=.)([_\-. ][A-Za-z]+\d{0,2}[A-Za-z]*){1,2}$")
"""What may end a name to say what the file is, such as "_mask" or "_gtFine_labelIds"; never a frame's number."""
_MIN_TAIL_SHARE = 0.05
_PROBES = 5
_FLAT = 0.8
"""Masks are of even areas: more of their pixels than this equal their right neighbor. In photos it is 1 to 40 %."""
_MAX_VALUES = 100  # in one mask; scans and X-rays, which may be as even, have more
_LABEL_FILES = {".json", ".xml", ".csv"}


class Kind(Enum):
    """What an image file holds, by its content."""

    PHOTO = "photo"
    MASK = "mask"
    DEEP = "image of more bits or other channels"
    COLOR_MASK = "color mask"
    LOSSY_MASK = "lossy mask"


@dataclass(frozen=True)
class Family:
    """Files of one folder whose names end alike.

    Attributes:
        folder: below the root, "" for the root itself.
        tail: the end of the names before the suffix, such as "_mask", or "".
        suffix: in lower case.
        files: names in the folder.
    """

    folder: str
    tail: str
    suffix: str
    files: tuple[str, ...]

    @property
    def paths(self) -> list[str]:
        """The files, below the root."""
        return [f"{self.folder}/{name}" if self.folder else name for name in self.files]


def find_families(root: Path) -> list[Family]:
    """The image files below a folder, links followed."""
    families = []
    for folder, names in _walk(root):
        tails = Counter(tail_of(name) for name in names)
        few = max(2, _MIN_TAIL_SHARE * len(names))
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name in names:
            tail = tail_of(name)
            found[tail if tails[tail] >= few else "", PurePosixPath(name).suffix.lower()].append(name)
        families += [Family(folder, *key, tuple(files)) for key, files in sorted(found.items())]
    return families


def tail_of(name: str) -> str:
    """The words at the end of a file's name that may say what it is, such as "_mask"; "" if there are none."""
    match = _TAIL.search(PurePosixPath(name).stem)
    return match[0] if match else ""


def find_label_files(root: Path) -> list[str]:
    """Files below a folder that may hold labels other than masks, for a message."""
    return [
        str(Path(folder, name).relative_to(root))
        for folder, _, names in os.walk(root)
        for name in sorted(names)
        if Path(name).suffix.lower() in _LABEL_FILES and not is_system_file(PurePosixPath(name))
    ]


def kind_of(root: Path, family: Family) -> Kind:
    """What most of a family's files hold, of some that are looked into.

    Raises:
        InputError: none of them can be read.
    """
    probes = [root / path for path in evenly(family.paths, _PROBES)]
    kinds = Counter(kind for kind in map(_kind_of_file, probes) if kind)
    if not kinds:
        read_image(probes[0])  # says what is wrong with it
    return kinds.most_common(1)[0][0]


def evenly(items: Sequence[_Item], count: int) -> list[_Item]:
    """Up to `count` of the items, spread evenly over all of them."""
    taken = min(count, len(items))
    return [items[index * len(items) // taken] for index in range(taken)]


def _kind_of_file(path: Path) -> Kind | None:
    """What a file holds; None if it cannot be read, which the check of the data set will say."""
    try:
        size = huge_size(path, turn=False)
        if size is not None:
            pixels, _, compression = read_window(path, middle_window(size))
            lossy, deep = bool(compression), pixels.dtype != np.uint8
        else:
            with Image.open(path) as image:
                lossy, deep = bool(lossy_format(image)), bits_per_channel(image) > 8
                pixels = np.atleast_3d(np.asarray(image))
    except UnidentifiedImageError:
        return _kind_of_values(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    one_channel, flat = bool((pixels == pixels[..., :1]).all()), _flatness(pixels) > _FLAT
    if deep and one_channel:
        return Kind.MASK if flat else Kind.DEEP
    if not flat or _count_values(pixels) > _MAX_VALUES:
        return Kind.PHOTO
    if lossy:
        return Kind.LOSSY_MASK
    return Kind.MASK if one_channel else Kind.COLOR_MASK


def _kind_of_values(path: Path) -> Kind | None:
    """Of a file that Pillow does not know: whether it holds numbers of another kind."""
    with suppress(OSError, SyntaxError, ValueError):
        decode_values(path)
        return Kind.DEEP
    return None


def _flatness(pixels: np.ndarray) -> float:
    """The share of pixels (H, W, channels) that equal their right neighbor."""
    same = (pixels[:, 1:] == pixels[:, :-1]).all(axis=2)
    return float(same.mean()) if same.size else 1.0


def _count_values(pixels: np.ndarray) -> int:
    """The number of different values or colors of pixels (H, W, channels)."""
    places = 256 ** np.arange(pixels.shape[2], dtype=np.uint32)
    return len(np.unique(pixels.astype(np.uint32) @ places))


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders below the root and the names of their image files, in order; a folder that links lead to twice, once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(root, followlinks=True):
        here = os.path.realpath(place)
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        images = [
            name
            for name in sorted(names)
            if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and not is_system_file(PurePosixPath(name))
        ]
        if images:
            folder = Path(place).relative_to(root).as_posix()
            yield "" if folder == "." else folder, images
