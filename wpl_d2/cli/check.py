"""Check a data set that is described by a YAML file: lists, images, labels, classes and boxes.

Prints what is in it, what may not be meant so, and what must be mended. The exit status is 1 if anything must be
mended, and 2 if there is no such data set. Of a folder without a YAML it prints what `wpl init` takes it for.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..utils.command_line import positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("description", help="the data set's YAML, or a folder of images and labels")
    parser.add_argument(
        "--min-box-area", type=positive_int, metavar="PIXELS", help="default: that of DATASETS.MIN_BOX_AREA"
    )


def main(args: argparse.Namespace) -> int:
    """Check a data set."""
    from ..config import get_cfg
    from ..data.dataset_report import report_dataset
    from ..data.datasets import generate_if_missing, load_description

    if Path(args.description).is_dir():
        return _look_at(Path(args.description))
    description = load_description(args.description)
    generate_if_missing(description)
    result = report_dataset(description, args.min_box_area or get_cfg().DATASETS.MIN_BOX_AREA)
    print(f"\n{description.name} in {description.root}\n\n{result.tables()}\n")
    for note in result.notes:
        print(f"note: {note}")
    for problem in result.problems:
        print(f"problem: {problem}")
    print(f"{len(result.problems)} problems")
    return 1 if result.problems else 0


def _look_at(folder: Path) -> int:
    from ..data.inspection import propose

    proposal = propose(folder)
    print(f"{proposal.summary()}\nnothing was written: `wpl init {folder}` describes it so")
    return 0
