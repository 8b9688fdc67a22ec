"""Cityscapes, fine annotations: 2975 training, 500 validation and 1525 test images, 19 classes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from numpy.typing import NDArray

from ...structures import IGNORE
from ...utils.errors import InputError
from ..image_io import read_raw_mask
from .benchmark import UNMASKED, Archive, Benchmark, Sources, list_part

_LARGEST_ID = 33  # of labelIds; the number plate's -1 is in no image
_IMAGE = "_leftImg8bit.png"

TRAIN_IDS = np.full(256, IGNORE, dtype=np.uint8)
"""(256,) train id of each label id; 255 for none."""
for _category in CITYSCAPES_CATEGORIES:
    TRAIN_IDS[_category["id"]] = _category["trainId"]


def find_sources(root: Path) -> Sources:
    """Find the images and their `labelIds` masks; published masks of test images are all void.

    Args:
        root: holds `leftImg8bit/{train,val,test}/CITY/` and `gtFine/{train,val}/CITY/`.
    """
    sources: Sources = {}
    for name in ("train", "val", UNMASKED):
        part = list_part(name)
        images = (root / "leftImg8bit" / part).glob(f"*/*{_IMAGE}")
        keys = {file.name.removesuffix(_IMAGE): file.parent.name for file in images}
        sources[name] = {
            key: root / "gtFine" / part / city / f"{key}_gtFine_labelIds.png" for key, city in keys.items()
        }
    return sources


def read_source(file: Path) -> NDArray[np.uint8]:
    """Read a `labelIds` mask as train ids (H, W).

    Raises:
        InputError: the file is missing, broken or something else.
    """
    mask = read_raw_mask(file)
    if mask.max() > _LARGEST_ID:
        raise InputError(f"{file}: holds the id {mask.max()}, no label id; unpack {CITYSCAPES.archives[1].file} again")
    return TRAIN_IDS[mask]


def _line(key: str, list_name: str) -> str:
    return f"{list_part(list_name)}/{key.split('_')[0]}/{key}"


_ADDRESS = "https://www.cityscapes-dataset.com/downloads/, after registration"
CITYSCAPES = Benchmark(
    name="cityscapes",
    archives=(
        Archive("leftImg8bit_trainvaltest.zip", _ADDRESS, ("leftImg8bit",)),
        Archive("gtFine_trainvaltest.zip", _ADDRESS, ("gtFine",)),
    ),
    # CITY_SEQUENCE_FRAME, with or (in CPS's lists) without the rest of the original name.
    file_name=re.compile(r"([a-z]+_\d{6}_\d{6})((_leftImg8bit)?\.png)?"),
    line=_line,
    find_sources=find_sources,
    read_source=read_source,
)
