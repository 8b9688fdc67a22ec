"""Values of the user's YAML files, returned if they are of the kind that is wanted."""

from __future__ import annotations

from typing import Any

from .errors import InputError

Color = tuple[int, int, int]


def check_text(where: str, value: Any) -> str:
    """Text that is not empty.

    Args:
        where: file and key, for the message.
        value: what the file says.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, str) or not value:
        raise InputError(
            f"{where}: {value!r} is not text; write text, in quotes where YAML takes it for something else"
        )
    return value


def check_integer(where: str, value: Any) -> int:
    """An integer; see `check_text`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{where}: {value!r} is not an integer; write one, such as 255")
    return value


def check_color(where: str, value: Any) -> Color:
    """A color [r, g, b] of integers from 0 to 255; see `check_text`."""
    triple = isinstance(value, list) and len(value) == 3
    if not triple or not all(isinstance(c, int) and 0 <= c <= 255 for c in value):
        raise InputError(f"{where}: {value!r} is not a color; write [r, g, b], each from 0 to 255")
    red, green, blue = value
    return red, green, blue
