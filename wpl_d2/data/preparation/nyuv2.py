"""NYUv2: the 1449 labeled photos of NYU Depth v2 with 13 classes, small, in lists of this project's own."""

from __future__ import annotations

import re
from pathlib import Path

from ..image_io import read_mask
from .benchmark import Archive, Benchmark, Sources, key_line
from .splits import read_own_lists


def find_sources(root: Path) -> Sources:
    """Find the photos, whose masks are ready.

    Args:
        root: holds `images/ID.jpg` and `masks/ID.png`; without the latter folder it counts as empty.
    """
    masks = root / "masks"
    photos = {file.stem for file in (root / "images").glob("*.jpg")} if masks.is_dir() else set()
    return {
        name: {key: masks / f"{key}.png" for key in photos.intersection(NYUV2.own_lists[name])}
        for name in ("train", "dev", "val")
    }


NYUV2 = Benchmark(
    name="nyuv2",
    archives=(
        Archive(
            "the photos of nyu_depth_v2_labeled.mat there as 0001.jpg to 1449.jpg, shorter side 240",
            "https://cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html",
            ("images",),
        ),
        Archive(
            "their masks there as 0001.png to 1449.png, ids from 0 (bed) to 12 (window) and 255, the published less 1",
            "https://github.com/ankurhanda/nyuv2-meta-data",
            ("masks",),
        ),
    ),
    file_name=re.compile(r"(\d{4})(\.jpg)?"),
    line=key_line,
    find_sources=find_sources,
    read_source=read_mask,
    own_lists=read_own_lists("nyuv2_lists.txt"),
)
