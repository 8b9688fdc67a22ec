"""VOC animals: 3608 photos of PASCAL VOC 2012, small, with 7 of its classes, in lists of this project's own."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...structures import IGNORE
from ..datasets.lists import EXTRA
from ..image_io import read_image
from . import voc
from .benchmark import Sources
from .splits import read_own_lists

_VOC = "VOC2012"  # the folder beside this data set, as for `tools/prepare_dataset.py voc`

CLASS_IDS = np.full(256, IGNORE, dtype=np.uint8)
"""(256,) class id of each VOC class: background, cat, cow, dog, horse, sheep, person; 255 for the others and void."""
CLASS_IDS[[0, 8, 10, 12, 13, 17, 15]] = range(7)


class Original(NamedTuple):
    """An image in VOC: its photo, and its mask by VOC or SBD."""

    photo: Path
    mask: Path


def find_sources(root: Path) -> Sources:
    """Find the images whose photo and mask (if there is one) exist here or in VOC.

    Official training and validation images have VOC's own mask, the others SBD's.

    Args:
        root: with `VOC2012/` beside it, before or after the preparation of VOC.
    """
    archive = root.parent / _VOC
    own, added = archive / "SegmentationClass", voc.find_sbd_masks(archive)
    photos = _stems(root / "images", "*.jpg") | _stems(archive / "JPEGImages", "*.jpg")
    masks = _stems(root / "masks", "*.png") | _stems(own, "*.png")
    sources: Sources = {}
    for name in ("train", EXTRA, "dev", "val"):
        others = added if name == EXTRA else {}
        there = photos & (masks | others.keys() | VOC_ANIMALS.unmasked)
        sources[name] = {
            key: Original(archive / "JPEGImages" / f"{key}.jpg", others.get(key, own / f"{key}.png"))
            for key in there.intersection(VOC_ANIMALS.own_lists[name])
        }
    return sources


def _stems(folder: Path, pattern: str) -> set[str]:
    return {file.stem for file in folder.glob(pattern)}


def read_source(source: Original) -> NDArray[np.uint8]:
    """Read a mask as class ids (h, w), resized by nearest neighbor to the size of its photo here.

    Raises:
        InputError: the file is missing, broken or something else.
    """
    mask = Image.fromarray(CLASS_IDS[voc.read_source(source.mask)])
    return np.asarray(mask.resize(resized_size(*mask.size), Image.Resampling.NEAREST))


def read_photo(source: Original) -> NDArray[np.uint8]:
    """Read a photo, resized to its size here, (h, w, 3) RGB.

    Raises:
        InputError: the file is missing or broken.
    """
    photo = Image.fromarray(read_image(source.photo))
    return np.asarray(photo.resize(resized_size(*photo.size), Image.Resampling.BICUBIC))


def resized_size(width: int, height: int) -> tuple[int, int]:
    """The size of a photo here, (width, height), with a shorter side of 256 pixels.

    Photos with more than 320 are resized by way of 320 and rounded twice, 500x375 to 342x256. These are the sizes of
    the photos that this project's figures were measured on; at other sizes a seed would draw other crops. Those photos'
    resize filter, number of compressions and grid of the masks are not known.
    """
    for side in (320, 256):
        shorter = min(width, height)
        if shorter > side or side == 256:
            width, height = round(width * side / shorter), round(height * side / shorter)
    return width, height


def _keys(words: list[str]) -> list[str]:
    year, *numbers = words
    return [f"{year}_{number}" for number in numbers]


_LISTS = read_own_lists("voc_animals_lists.txt", _keys)
_UNMASKED = _LISTS.pop("unmasked")
VOC_ANIMALS = replace(
    voc.VOC,
    name="voc_animals",
    archives=tuple(
        archive._replace(contents=tuple(f"../{_VOC}/{place}" for place in archive.contents))
        for archive in voc.VOC.archives
    ),
    find_sources=find_sources,
    read_source=read_source,
    read_photo=read_photo,
    own_lists=_LISTS,
    unmasked=_UNMASKED,
    min_ratio=Fraction(1, 10),
)
