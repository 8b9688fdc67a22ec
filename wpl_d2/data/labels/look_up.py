"""From the values of a mask to class ids, by a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

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


def _name(values: np.ndarray, total: int, show: Callable[[int], str]) -> str:
    """The values with their share of all pixels, the most frequent first."""
    found, counts = np.unique(values, return_counts=True)
    first = np.argsort(-counts, kind="stable")[:_MAX_NAMED]
    shares = {show(int(found[i])): 100 * counts[i] / total for i in first}
    named = [f"{name} ({share:{'.0f' if share >= 10 else '.2g'}} % of the pixels)" for name, share in shares.items()]
    more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
    return ", ".join(named) + more
