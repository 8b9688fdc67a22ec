"""From the values of a mask to class ids, by a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ...structures import IGNORE
from ...utils.errors import InputError

_MAX_NAMED = 5


class UnlistedValuesError(ValueError):
    """A mask holds values that the table does not have; the message says which, with their share of the pixels."""


def look_up(
    values: np.ndarray, table: Mapping[int, int], other: int | None = None, show: Callable[[int], str] = str
) -> np.ndarray:
    """Replace each value by what a table says.

    Args:
        values: integers of any shape.
        table: class ids or `IGNORE` by value.
        other: for the values that it does not have; None admits none.
        show: what a value is called in the message.

    Returns:
        uint8 of the same shape.

    Raises:
        UnlistedValuesError: there are values that it does not have.
    """
    keys = np.array(sorted(table), dtype=np.int64)
    ids = np.array([table[key] for key in keys.tolist()], dtype=np.uint8)
    places = np.searchsorted(keys, values).clip(max=len(keys) - 1)
    listed = keys[places] == values
    result = ids[places]
    if not listed.all():
        if other is None:
            raise UnlistedValuesError(_name(values[~listed], values.size, show))
        result[~listed] = other
    return result


def look_back(mask: np.ndarray, table: Mapping[int, int], where: str) -> np.ndarray:
    """Replace each class id by the first value that a table has for it.

    Args:
        mask: uint8 class ids, or `IGNORE`.
        table: as of `look_up`.
        where: the table's place in the YAML, for the message.

    Returns:
        int64 of the same shape.

    Raises:
        InputError: there is none for some class id, or for "no class".
    """
    values = np.full(IGNORE + 1, -1, dtype=np.int64)
    for value, class_id in reversed(list(table.items())):
        values[class_id] = value
    result = values[mask]
    if (result < 0).any():
        what = "no class" if IGNORE in mask[result < 0] else f"the class id {mask[result < 0].min()}"
        raise InputError(f"{where}: nothing stands for {what}, which a new mask has; add what does")
    return result


def _name(values: np.ndarray, total: int, show: Callable[[int], str]) -> str:
    """The values with their share of all pixels, the most frequent first."""
    found, counts = np.unique(values, return_counts=True)
    first = np.argsort(-counts, kind="stable")[:_MAX_NAMED]
    shares = {show(int(found[i])): 100 * counts[i] / total for i in first}
    named = [f"{name} ({share:{'.0f' if share >= 10 else '.2g'}} % of the pixels)" for name, share in shares.items()]
    more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
    return ", ".join(named) + more
