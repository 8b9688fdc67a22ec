"""Values of a data set's YAML, converted to what `Description` holds, or refused with the file and the key."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from ...utils.checks import Color, check_color, check_integer, check_text
from ...utils.errors import InputError, check_name
from ..image_header import EXIF
from ..path_templates import ANY_SUFFIX, SLOT
from ..pixel_values import RGB

SPLIT = "{split}"
"""The placeholder in the name and the file of a list that stands for one list a split."""


def convert(key: str, value: Any, where: str) -> Any:
    """Convert a value of the YAML to the type of its field in `Description`.

    Args:
        key: such as "classes".
        value: what the file says.
        where: file and key, for the message.

    Raises:
        InputError: the value is of another type.
    """
    return _CONVERT.get(key, _text)(value, where)


def _text(value: Any, where: str) -> str:
    return check_text(where, value)


def _template(value: Any, where: str) -> str:
    """A template of paths; a folder stands for all images in it."""
    text = check_text(where, value)
    if SLOT in text or PurePosixPath(text).suffix:
        return text
    return (PurePosixPath(text) / f"{SLOT}{ANY_SUFFIX}").as_posix()


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(f"{where}: {value!r} is not a list; write [first, second]")
    return tuple(check_text(where, item) for item in value)


def _integer(value: Any, where: str) -> int:
    return check_integer(where, value)


def _exif(value: Any, where: str) -> str:
    return check_name(where, value, EXIF)


def _integers(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise InputError(f"{where}: {value!r} is not a list; write [1, 2]")
    return tuple(check_integer(where, item) for item in value)


def _colors(value: Any, where: str) -> tuple[Color, ...]:
    return tuple(check_color(where, color) for color in (value if isinstance(value, list) else [value]))


def _channels(value: Any, where: str) -> tuple[str, ...]:
    """Names of channels; a number stands for names made up."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return {1: ("gray",), 3: RGB.channels}.get(value, tuple(f"channel {place + 1}" for place in range(value)))
    return _texts(value, where)


def _value_range(value: Any, where: str) -> tuple[tuple[float, float], ...]:
    pairs = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    for pair in pairs:
        numbers = isinstance(pair, list) and len(pair) == 2 and all(type(v) in (int, float) for v in pair)
        if not numbers or not -math.inf < pair[0] < pair[1] < math.inf:
            raise InputError(f"{where}: {pair!r} is no range; write [black, white], such as [0, 4095], the lower first")
    return tuple((float(low), float(high)) for low, high in pairs)


def _lists(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: {value!r} is not a mapping; write {{name: file}}")
    lists = {check_text(where, key): check_text(where, file) for key, file in value.items()}
    for key, file in lists.items():
        if (SPLIT in key) != (SPLIT in file):
            raise InputError(f"{where}: {key!r}: {file!r} has {SPLIT} on one side; write it on both")
    return lists


def _labels(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or "format" not in value:
        raise InputError(f"{where}: {value!r} names no format; write {{format: masks, ...}}")
    return value | {"format": check_text(f"{where}: 'format'", value["format"])}


_CONVERT: dict[str, Callable[[Any, str], Any]] = {
    "image": _template,
    "mask": _template,
    "labels": _labels,
    "classes": _texts,
    "objects": _texts,
    "ignore": _integer,
    "channels": _channels,
    "value_range": _value_range,
    "exif": _exif,
    "colors": _colors,
    "dataset_ids": _integers,
    "splits": _texts,
    "lists": _lists,
}
