"""Command lines of options and of KEY VALUE pairs that override a config."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

_NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def parse_args(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read a command line whose options may stand before, between and after its KEY VALUE pairs.

    Args:
        parser: its positional argument `opts` takes the pairs, as that of Detectron2's `default_argument_parser`.
        argv: the command line without the program's name, by default this program's.
    """
    for action in parser._actions:
        if action.dest == "opts":
            action.nargs = "*"  # Detectron2's takes all that follows the first key, options too
    given = sys.argv[1:] if argv is None else argv
    # argparse takes -1e-3 for an option; with a space before it, it is the same number to all who read it.
    return parser.parse_intermixed_args([f" {word}" if _NEGATIVE.fullmatch(word) else word for word in given])


def positive_int(text: str) -> int:
    """An argument's type: a whole number of 1 or more."""
    number = int(text) if text.strip().isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return number


def fraction(text: str) -> float:
    """An argument's type: a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return number
