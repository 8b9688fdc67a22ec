"""What the value of a config key may be: a test, and the words for it in messages and in the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..utils.errors import InputError, check_name


@dataclass(frozen=True)
class Constraint:
    """What a value may be.

    Attributes:
        text: completes "give ...", such as "a number from 0 to 1".
        holds: whether a value of the key's own type is one.
    """

    text: str
    holds: Callable[[Any], bool] = lambda value: True

    def check(self, key: str, value: Any) -> None:
        """Reject a wrong value.

        Args:
            key: whose value it is, for the message.
            value: to be checked.

        Raises:
            InputError: it is none of the allowed ones.
        """
        if not self.holds(value):
            raise InputError(f"{key}: {value!r} is out of its range; give {self.text}")


@dataclass(frozen=True)
class Names(Constraint):
    """One of several names, or any number of them.

    Attributes:
        valid: the names.
    """

    valid: tuple[str, ...] = ()

    def check(self, key: str, value: Any) -> None:
        """See `Constraint.check`; the message proposes the nearest name."""
        for name in [value] if isinstance(value, str) else value:
            check_name(key, name, self.valid)


class Key(NamedTuple):
    """A key of the config.

    Attributes:
        name: with its sections, such as "FRAMEWORK.CUTMIX.PROB".
        default: of the type that every value has.
        constraint: what values may be beyond that.
        text: what the key does.
    """

    name: str
    default: Any
    constraint: Constraint
    text: str


def one_of(*names: str) -> Names:
    """The value is one of `names`."""
    return Names(", ".join(name or "''" for name in names), valid=names)


def some_of(*names: str) -> Names:
    """The value is a list of any of `names`."""
    return Names(f"any of {', '.join(names)}", valid=names)


def is_numbers(value: Any, count: int) -> bool:
    """Whether a value is a list or tuple of `count` numbers."""
    return len(value) == count and all(type(number) in (int, float) for number in value)


def _is_size(value: Any) -> bool:
    return len(value) == 2 and all(type(length) is int and length > 0 for length in value)


def _is_range(value: Any) -> bool:
    return is_numbers(value, 2) and 0 < value[0] <= value[1]


FLAG = Constraint("True or False")
TEXT = Constraint("text")
NAMES = Constraint("names, such as ('a', 'b')")
IDS = Constraint("class ids, such as (0, 3)")
NUMBER = Constraint("a number")
SHARE = Constraint("a number from 0 to 1", lambda value: 0 <= value <= 1)
POSITIVE = Constraint("a number above 0", lambda value: value > 0)
NOT_NEGATIVE = Constraint("a number, 0 or more", lambda value: value >= 0)
COUNT = Constraint("a whole number, 1 or more", lambda value: value >= 1)
COUNT_FROM_0 = Constraint("a whole number, 0 or more", lambda value: value >= 0)
COUNTS = Constraint("whole numbers, 1 or more", lambda value: len(value) > 0 and all(count >= 1 for count in value))
SIZE = Constraint("(height, width) in pixels, such as (321, 321)", _is_size)
RANGE = Constraint("(lowest, highest), both above 0", _is_range)
AREA = Constraint("(lowest, highest), above 0 and up to 1", lambda value: _is_range(value) and value[1] <= 1)
CHANNELS = Constraint("three numbers, those of red, green and blue", lambda value: is_numbers(value, 3))
