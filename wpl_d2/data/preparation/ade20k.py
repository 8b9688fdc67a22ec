"""ADE20K as the scene parsing challenge has it: 20 210 training and 2000 validation images, 150 classes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...utils.errors import InputError
from ..image_io import read_raw_mask
from .benchmark import Archive, Benchmark, Sources, list_part

_FOLDERS = {"train": "training", "val": "validation"}
_LARGEST_ID = 150


def find_sources(root: Path) -> Sources:
    """Find the images and their annotations.

    Args:
        root: holds `images/{training,validation}/` and `annotations/{training,validation}/`.
    """
    return {
        part: {
            image.stem: root / "annotations" / folder / f"{image.stem}.png"
            for image in (root / "images" / folder).glob("*.jpg")
        }
        for part, folder in _FOLDERS.items()
    }


def read_source(file: Path) -> NDArray[np.uint8]:
    """Read an annotation (H, W), from 1 on and 0 for what is of no class, as class ids from 0 on and 255.

    Raises:
        InputError: the file is missing, broken or something else.
    """
    mask = read_raw_mask(file)
    if mask.max() > _LARGEST_ID:
        raise InputError(f"{file}: holds the id {mask.max()}, no class; unpack {ADE20K.archives[0].file} again")
    return (mask - 1).astype(np.uint8)


def _line(key: str, list_name: str) -> str:
    return f"{_FOLDERS[list_part(list_name)]}/{key}"


ADE20K = Benchmark(
    name="ade20k",
    archives=(
        Archive(
            "ADEChallengeData2016.zip",
            "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
            ("images",),
        ),
    ),
    file_name=re.compile(r"(ADE_(?:train|val)_\d{8})(\.jpg)?"),
    line=_line,
    find_sources=find_sources,
    read_source=read_source,
    lists="https://raw.githubusercontent.com/LiheYoung/UniMatch-V2/main/splits",
)
