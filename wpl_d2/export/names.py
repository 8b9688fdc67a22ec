"""Names of results that never collide."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import PurePath

SUFFIX = ".png"
"""Of each result; a name gets it at its end."""


def result_names(places: Sequence[PurePath]) -> list[PurePath]:
    """A name for the results of each image, without `SUFFIX`.

    It is the image's own, without suffix where that is unique: `a` for `a.jpg`. Where it is not, all concerned keep
    their suffix (`a.jpg`, `a.png`), and those that are still no different get a number (`a.JPG`, `a.jpg-2`). Names that
    differ only in case, or in how an accent is encoded, are one on many disks, and so they are here.

    Args:
        places: of the images below their folder, all different.
    """
    taken = {_key(parent) for place in places for parent in place.parents}
    levels = [0] * len(places)
    while True:
        names = [_name(place, level) for place, level in zip(places, levels, strict=True)]
        keys = [_key(name.with_name(name.name + SUFFIX)) for name in names]
        count = Counter(keys)
        wrong = [i for i, key in enumerate(keys) if count[key] > 1 or key in taken]
        if not wrong:
            return names
        for i in [i for i in wrong if not levels[i]] or _all_but_the_first(wrong, keys, taken):
            levels[i] += 1


def _name(place: PurePath, level: int) -> PurePath:
    if level == 0:
        return place.with_suffix("")
    return place if level == 1 else place.with_name(f"{place.name}-{level}")


def _all_but_the_first(wrong: Sequence[int], keys: Sequence[str], taken: Collection[str]) -> list[int]:
    seen, later = set(taken), []
    for i in wrong:
        if keys[i] in seen:
            later.append(i)
        seen.add(keys[i])
    return later


def _key(path: PurePath) -> str:
    return unicodedata.normalize("NFC", path.as_posix()).casefold()
