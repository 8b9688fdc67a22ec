"""What a benchmark is: its archives, what its masks are made from, how published lists name its images."""

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
"""By list ("train", "val", perhaps `UNMASKED`) and image key: what a mask is made from; None where the archive holds
the mask itself."""

UNMASKED = "test_unlabeled"
"""The list of test images, whose masks the benchmark's server keeps."""


class Archive(NamedTuple):
    """A published file; one of `gives`, seen from the data set's root, must be there once it is unpacked."""

    file: str
    address: str
    gives: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """One data set and its published splits.

    An image's key is the shortest text that names it, such as "2007_000032" or "ulm_000140_000019": the same in
    every format in which lists are published.

    Attributes:
        name: of the data set; its description is `configs/datasets/NAME.yaml`.
        archives: what the user fetches.
        file_name: matches the file name, or the id, at the start of a line of any published list; group 1 is the key.
        line: (key, list name) -> the line of this project's list.
        find_sources: root -> the images that are there.
        read_source: a source that is not None -> (H, W) uint8 class ids, 255 for none. Runs in another process.
        read_photo: a source -> (H, W, 3) uint8 RGB, where the images are made too; None: the archive holds them. Runs
            in another process.
        own_lists: the lists that this project publishes itself, the keys of each.
        unmasked: the keys of images of which nobody has a mask.
        least_share: the share of a split's labeled images, drawn at random, that show each of the objects, or more.
    """

    name: str
    archives: tuple[Archive, ...]
    file_name: re.Pattern[str]
    line: Callable[[str, str], str]
    find_sources: Callable[[Path], Sources]
    read_source: Callable[[Any], NDArray[np.uint8]]
    read_photo: Callable[[Any], NDArray[np.uint8]] | None = None
    own_lists: Mapping[str, Collection[str]] = field(default_factory=dict)
    unmasked: frozenset[str] = frozenset()
    least_share: Fraction = Fraction(0)

    @property
    def description(self) -> str:
        """The data set's YAML, from the repository's root."""
        return f"configs/datasets/{self.name}.yaml"

    def keys(self, text: str) -> list[str] | None:
        """The keys of a list in any published format; None if a line does not name an image of this data set."""
        keys = []
        for line in filter(str.strip, text.splitlines()):
            name = PurePosixPath(re.split(r"[\t ]", line.strip())[0]).name
            match = self.file_name.fullmatch(name)
            if not match:
                return None
            keys.append(match[1])
        return keys

    def missing_archives(self, root: Path) -> list[str]:
        """A message for each archive that is not unpacked below `root`."""
        return [
            f"{_seen_from(root, archive.gives[0])}: is missing; unpack {archive.file} ({archive.address})"
            for archive in self.archives
            if not any(_seen_from(root, place).exists() for place in archive.gives)
        ]


def _seen_from(root: Path, place: str) -> Path:
    """A place that may begin with "..", from a root that need not be there."""
    return Path(os.path.normpath(root / place))


def part_of(list_name: str) -> str:
    """The part of the data set that a list is about, "train", "val" or "test"."""
    return {"val": "val", UNMASKED: "test"}.get(list_name, "train")


def read_ids(file: Path) -> set[str]:
    """The words at the starts of the lines of a text file; empty where there is no file.

    Raises:
        InputError: it is no text.
    """
    try:
        return {line.split()[0] for line in read_text(file).splitlines() if line.strip()}
    except FileNotFoundError:
        return set()
