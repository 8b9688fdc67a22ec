"""PASCAL VOC 2012 with the extra annotations of SBD ("train_aug"): 10 582 training and 1449 validation images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from ...structures import IGNORE
from ...utils.errors import InputError
from ..image_io import read_mask
from .benchmark import Archive, Benchmark, Sources, key_line, read_ids

_LARGEST_ID = 20
_SBD_PLACES = ("benchmark_RELEASE/dataset", "dataset", "SBD", "SBD/benchmark_RELEASE/dataset", "SBD/dataset", ".")
"""Where SBD's `cls/` may be: as the archive unpacks, or without its outer folders, as with torchvision."""


def find_sources(root: Path) -> Sources:
    """Find the images of VOC's segmentation lists, with VOC's masks, and those of SBD, with masks to be made.

    VOC's own mask is always preferred: SBD annotated the same images again, with coarser borders and no void. VOC's
    masks are index images already and stay in `SegmentationClass/`, where SBD's are added.

    Args:
        root: holds `JPEGImages/`, `SegmentationClass/`, SBD and, unless `splits/val.txt` exists, `ImageSets/`. The
            widespread `SegmentationClassAug/`, with index images, can replace SBD.

    Raises:
        InputError: there is no list of validation images.
    """
    lists = root / "ImageSets" / "Segmentation"
    val = read_ids(lists / "val.txt") or read_ids(root / "splits" / "val.txt")
    if not val:
        raise InputError(f"{lists / 'val.txt'}: is missing; unpack {VOC.archives[0].file} in {root}, or import a list")
    own = val | read_ids(lists / "train.txt")
    train: dict[str, Path | None] = dict(find_sbd_masks(root))
    present = {file.stem for file in (root / "SegmentationClass").glob("*.png")}
    train |= dict.fromkeys(own | (present - train.keys()))
    return {"train": {key: train[key] for key in train.keys() - val}, "val": dict.fromkeys(val)}


def find_sbd_masks(root: Path) -> dict[str, Path]:
    """Find SBD's masks below `root`, original or converted, by image."""
    added = [*(f"{place}/cls/*.mat" for place in _SBD_PLACES), "SegmentationClassAug/*.png"]
    return {file.stem: file for pattern in added for file in root.glob(pattern)}


def read_source(file: Path) -> NDArray[np.uint8]:
    """Read the class ids (H, W) of an SBD `cls/ID.mat` or an index image.

    Raises:
        InputError: the file is broken or something else.
    """
    mask = read_mask(file) if file.suffix == ".png" else _read_mat(file)
    if mask.size == 0 or mask[mask != IGNORE].max(initial=0) > _LARGEST_ID:
        raise InputError(f"{file}: holds ids above {_LARGEST_ID}; unpack its archive again")
    return mask


def _read_mat(file: Path) -> NDArray[np.uint8]:
    try:
        return np.asarray(loadmat(file, simplify_cells=True)["GTcls"]["Segmentation"], dtype=np.uint8)
    except Exception as error:  # of any class, by scipy's reader of a damaged file
        raise InputError(f"{file}: is not an SBD mask ({error!r}); unpack {VOC.archives[1].file} again") from error


VOC = Benchmark(
    name="voc",
    archives=(
        Archive(
            "VOCdevkit/VOC2012 of VOCtrainval_11-May-2012.tar",
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            ("JPEGImages",),
        ),
        Archive(
            "benchmark.tgz",
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
            tuple(f"{place}/cls" for place in _SBD_PLACES),
        ),
    ),
    file_name=re.compile(r"(\d{4}_\d{6})(\.jpg)?"),
    line=key_line,
    find_sources=find_sources,
    read_source=read_source,
)
