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
        holds: whether a value is one; may raise `TypeError` for other types than the key's.
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
        try:
            holds = self.holds(value)
        except TypeError:  # of another type than the key's
            holds = False
        if not holds:
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
        for name in value if isinstance(value, list | tuple) else [value]:
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


def is_size(value: Any) -> bool:
    """Whether a value is a list or tuple of two whole numbers above 0."""
    return len(value) == 2 and all(type(length) is int and length > 0 for length in value)


def is_range(value: Any) -> bool:
    """Whether a value is a list or tuple of two numbers above 0, the second not below the first."""
    return is_numbers(value, 2) and 0 < value[0] <= value[1]
