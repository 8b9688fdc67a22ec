"""Parsing command lines with options and KEY VALUE pairs that override a config."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from .errors import suggest

_NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def parse_args(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line whose options may stand before, between and after its KEY VALUE pairs.

    Args:
        parser: may have the positional argument `opts` for the pairs, like Detectron2's `default_argument_parser`.
        argv: the arguments, by default `sys.argv[1:]`.

    Raises:
        SystemExit: with status 2, on wrong arguments; the message names the nearest option.
    """
    for action in parser._actions:
        if action.dest == "opts":
            action.nargs = "*"  # Detectron2's REMAINDER would take later options too
    given = sys.argv[1:] if argv is None else argv
    # argparse takes -1e-3 for an option; with a leading space it is not, and still parses as the same number.
    words = [f" {word}" if _NEGATIVE.fullmatch(word) else word for word in given]
    options = [option for action in parser._actions for option in action.option_strings]
    for name in (word.partition("=")[0] for word in words if word.startswith("--")):
        if not any(option.startswith(name) for option in options):
            mend = suggest(name, options, otherwise=f"see {parser.prog} --help")
            parser.error(f"unrecognized arguments: {name}; {mend}")
    return parser.parse_intermixed_args(words)


def positive_int(text: str) -> int:
    """An argument type for integers of 1 or more."""
    number = int(text) if text.strip().isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text.strip()!r} is not a whole number of 1 or more")
    return number


def fraction(text: str) -> float:
    """An argument type for numbers from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text.strip()!r} is not a number from 0 to 1")
    return number
