"""A benchmark: its archives, the sources of its masks, and how published lists name its images."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...utils.files import read_text

Sources = dict[str, dict[str, Any]]
"""The source of each mask by list ("train", "val", optionally `UNMASKED`) and image key; None if the archive has the
mask itself."""

UNMASKED = "test_unlabeled"
"""The list of test images, whose masks only the benchmark's server has."""


class Archive(NamedTuple):
    """A published archive; once it is unpacked, one of `contents` (relative to the data set's root) exists."""

    file: str
    address: str
    contents: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """A data set and its published splits.

    An image's key is the shortest text that names it in every format of published lists, such as "2007_000032" or
    "ulm_000140_000019".

    Attributes:
        name: of the data set; its description is `configs/datasets/NAME.yaml`.
        archives: to be downloaded by the user.
        file_name: matches the file name or id at the start of a line of any published list; group 1 is the key.
        line: (key, list name) -> a line of this project's list.
        find_sources: root -> the images that exist.
        read_source: a source that is not None -> (H, W) uint8 class ids, 255 for none. Runs in another process.
        lists: an address of published lists, for messages.
        read_photo: a source -> (H, W, 3) uint8 RGB; None if the archive has the images. Runs in another process.
        own_lists: the keys of each list that this project publishes itself.
        unmasked: the keys of images without a mask.
        min_ratio: least ratio of a random split's labeled images that show each of the object classes.
    """

    name: str
    archives: tuple[Archive, ...]
    file_name: re.Pattern[str]
    line: Callable[[str, str], str]
    find_sources: Callable[[Path], Sources]
    read_source: Callable[[Any], NDArray[np.uint8]]
    lists: str = "https://raw.githubusercontent.com/LiheYoung/UniMatch/main/splits"
    read_photo: Callable[[Any], NDArray[np.uint8]] | None = None
    own_lists: Mapping[str, Collection[str]] = field(default_factory=dict)
    unmasked: frozenset[str] = frozenset()
    min_ratio: Fraction = Fraction(0)

    @property
    def description(self) -> str:
        """The data set's YAML, relative to the repository."""
        return f"configs/datasets/{self.name}.yaml"

    def parse_keys(self, text: str) -> list[str] | None:
        """Parse a list in any published format; None if a line does not name an image of this data set."""
        keys = []
        for line in filter(str.strip, text.splitlines()):
            name = PurePosixPath(re.split(r"[\t ]", line.strip())[0]).name
            match = self.file_name.fullmatch(name)
            if not match:
                return None
            keys.append(match[1])
        return keys

    def missing_archives(self, root: Path) -> list[str]:
        """Messages that name the archives that are not unpacked below `root`."""
        return [
            f"{_resolve(root, archive.contents[0])}: is missing; unpack {archive.file} ({archive.address})"
            for archive in self.archives
            if not any(_resolve(root, path).exists() for path in archive.contents)
        ]


def _resolve(root: Path, path: str) -> Path:
    """Join paths, of which the second may begin with ".." and the first need not exist."""
    return Path(os.path.normpath(root / path))


def key_line(key: str, list_name: str) -> str:
    """The line of an image in lists that hold keys alone, as `Benchmark.line`."""
    return key


def list_part(list_name: str) -> str:
    """The part of the data set that a list belongs to: "train", "val" or "test"."""
    return {"val": "val", UNMASKED: "test"}.get(list_name, "train")


def read_ids(file: Path) -> set[str]:
    """Read the first word of each line of a text file; empty if there is no file.

    Raises:
        InputError: it is not text.
    """
    try:
        return {line.split()[0] for line in read_text(file).splitlines() if line.strip()}
    except FileNotFoundError:
        return set()
