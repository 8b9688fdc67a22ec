"""Errors for names that a config may get wrong."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def check_name(key: str, name: str, valid: Iterable[str]) -> str:
    """Return `name` if it is one of `valid`.

    Args:
        key: what the user set, such as "WEIGHTING.SIMILARITY"; for the message.
        name: the value set.
        valid: the names there are.

    Raises:
        ValueError: `name` is not among them; the message proposes the nearest one.
    """
    names = list(valid)
    if name in names:
        return name
    near = get_close_matches(str(name), names, n=1, cutoff=0.0)[0]
    raise ValueError(f"{key}: {name!r} is not one of {', '.join(names)}; did you mean {near!r}?")
