"""Numbers and checksums of the published lists (the lists themselves belong to those who published them)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_TABLE = Path(__file__).with_name("published_splits.txt")
_UNKNOWN = "-"


@dataclass
class PublishedList:
    """What is known about a list.

    Attributes:
        images: how many there are.
        digest: of the images (see `digest_of`); "" where it is not known.
        paths: of the files that hold it, below their publishers' folders of lists.
        file_digests: their SHA-256.
    """

    images: int
    digest: str
    paths: set[str] = field(default_factory=set)
    file_digests: set[str] = field(default_factory=set)


@cache
def published_lists(dataset: str) -> dict[str, PublishedList]:
    """The published lists of a data set by their names here, such as "92_labeled", "train" or "val".

    Args:
        dataset: a benchmark's name.
    """
    lists: dict[str, PublishedList] = {}
    for line in _TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{dataset} "):
            _, name, images, digest, file, file_digest = line.split()
            known = lists.setdefault(name, PublishedList(int(images), digest.strip(_UNKNOWN)))
            if file != _UNKNOWN:
                known.paths.add(file)
                known.file_digests.add(file_digest)
    return lists


def digest_of(keys: Iterable[str]) -> str:
    """SHA-256 of a set of images: of their keys in order, each on a line. Order and format of a list do not matter."""
    return hashlib.sha256("".join(f"{key}\n" for key in sorted(keys)).encode()).hexdigest()
