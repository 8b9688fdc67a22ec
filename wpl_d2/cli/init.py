"""Describe a folder of images and labels as a data set: `wpl init FOLDER`.

Finds out which labels belong to which image, which classes there are and which of them are countable, chooses
validation images, and writes FOLDER/NAME.yaml and FOLDER/lists. Images and masks are only read. On a terminal it asks
whether it is right; nothing is written before. `wpl init fields.yaml --add FOLDER` adds labels that were drawn or
corrected: unlabeled images of the data set become labeled ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.command_line import fraction
from ..utils.errors import InputError
from .choices import KNOWN_SETS

if TYPE_CHECKING:
    from ..data.inspection import Proposal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="where images and labels are, at any depth; with --add a set's YAML"
    )
    parser.add_argument(
        "--format", default="", choices=KNOWN_SETS, help="a public data set that the folder holds, as it was unpacked"
    )
    parser.add_argument("--images", default="*", metavar="PATTERN", help="which files are images, such as 'photos/*'")
    parser.add_argument("--masks", default="*", metavar="PATTERN", help="which files are labels, such as 'labels/*'")
    parser.add_argument("--add", type=Path, metavar="FOLDER", help="labels of unlabeled images of the set, to add")
    parser.add_argument(
        "--groups",
        default="",
        metavar="PATTERN",
        help="regular expression whose first group is what images of one video or place share in their paths, such as "
        "'(seq[0-9]+)_'; by default numbered frames that look alike are found",
    )
    parser.add_argument("--val", type=fraction, default=0.2, metavar="SHARE", help="of labeled images (default 0.2)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of validation images (default 0)")
    parser.add_argument(
        "--ignore", default="", metavar="VALUE", help='the masks\' value for "no class", or none, where that is unclear'
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    parser.add_argument("--force", action="store_true", help="replace a YAML and lists that are there")


def main(args: argparse.Namespace) -> None:
    """Describe a folder, or add labels to a data set."""
    if args.add:
        return _add(args)
    asks = sys.stdin.isatty() and not args.yes
    proposal = _propose(args, asks)
    if not args.force:
        proposal.check_free()
    print(proposal.summary())
    if asks:
        _correct(proposal)
    proposal.write()
    names = ", ".join(f"{list_name} ({len(lines)})" for list_name, lines in proposal.lists.items())
    print(f"wrote {proposal.path}, with the lists {names}\n{_next_steps(proposal)}")


def _propose(args: argparse.Namespace, asks: bool) -> Proposal:
    from ..data.inspection import AmbiguousLabelsError, propose

    try:
        return propose(args.folder, args.images, args.masks, args.groups, args.val, args.seed, args.ignore, args.format)
    except AmbiguousLabelsError as error:
        if not asks:
            raise
        print(error.what)
        ways = dict(enumerate(error.readings.items(), start=1))
        for number, (_, text) in ways.items():
            print(f"  {number}: {text}")
        answer = ""
        while answer not in map(str, ways):
            answer = input(f"Which is it, 1 to {len(ways)}? ").strip()
        (name, value), _ = ways[int(answer)]
        setattr(args, name, value)
        return _propose(args, asks)


def _add(args: argparse.Namespace) -> None:
    from ..data.additions import find_additions
    from ..data.datasets import load_description

    description = load_description(args.folder)
    additions = find_additions(description, args.add, args.masks)
    print("\n".join(f"- {line}" for line in additions.said))
    additions.write()
    print(
        f"{len(additions.lines)} images are labeled from now on; next: see that they are right, and train\n"
        f"  wpl check {description.path}\n  wpl train {description.path}"
    )


def _next_steps(proposal: Proposal) -> str:
    return (
        f"next: look through {proposal.path.name}, above all its classes and objects; then\n"
        f"  wpl check {proposal.path}\n  wpl train {proposal.path}"
    )


def _correct(proposal: Proposal) -> None:
    """Ask for names and objects until they fit."""
    print("Press Enter where it is right.")
    _ask("classes, in the order of their ids", proposal.classes, proposal.rename_classes)
    _ask("objects, which can be counted; - for none", proposal.objects, proposal.choose_objects)


def _ask(question: str, present: Sequence[str], change: Callable[[list[str]], None]) -> None:
    with suppress(EOFError):  # Ctrl-D is as good as Enter
        while answer := input(f"{question} [{', '.join(present)}]: ").strip():
            try:
                return change([] if answer == "-" else [name.strip() for name in answer.split(",")])
            except InputError as error:
                print(error)
