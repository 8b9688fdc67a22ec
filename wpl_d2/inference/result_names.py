"""The names of the results of images."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import PurePath

SUFFIX = ".png"
"""Appended to the name of each result."""


def result_names(paths: Sequence[PurePath]) -> list[PurePath]:
    """Choose a unique name for the results of each image, without `SUFFIX`.

    It is the image's path without suffix if that is unique: `a` for `a.jpg`. Otherwise all images concerned keep their
    suffix (`a.jpg`, `a.png`), and those that still collide get a number (`a.JPG`, `a.jpg-2`). Names that differ only in
    case or in the encoding of accents collide, as on many disks.

    Args:
        paths: of the images, relative to their folder, all different.
    """
    taken = {_key(parent) for path in paths for parent in path.parents}
    levels = [0] * len(paths)
    while True:
        names = [_name(path, level) for path, level in zip(paths, levels, strict=True)]
        keys = [_key(name.with_name(name.name + SUFFIX)) for name in names]
        count = Counter(keys)
        colliding = [i for i, key in enumerate(keys) if count[key] > 1 or key in taken]
        if not colliding:
            return names
        for i in [i for i in colliding if not levels[i]] or _all_but_the_first(colliding, keys, taken):
            levels[i] += 1


def _name(path: PurePath, level: int) -> PurePath:
    if level == 0:
        return path.with_suffix("")
    return path if level == 1 else path.with_name(f"{path.name}-{level}")


def _all_but_the_first(colliding: Sequence[int], keys: Sequence[str], taken: Collection[str]) -> list[int]:
    seen, later = set(taken), []
    for i in colliding:
        if keys[i] in seen:
            later.append(i)
        seen.add(keys[i])
    return later


def _key(path: PurePath) -> str:
    return unicodedata.normalize("NFC", path.as_posix()).casefold()
