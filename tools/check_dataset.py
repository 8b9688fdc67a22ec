#!/usr/bin/env python
"""Check a data set that is described by a YAML file: lists, images, masks, classes and boxes.

Prints what is in it, what may not be meant so, and what must be mended. The exit status is 1 if anything must be
mended, and 2 if there is no such data set.
"""

from __future__ import annotations

import argparse
import sys

from wpl_d2 import get_cfg
from wpl_d2.data.dataset_report import report_dataset
from wpl_d2.data.datasets import generate_if_missing, load_description
from wpl_d2.utils.command_line import positive_int
from wpl_d2.utils.errors import clear_errors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("description", help="the data set's YAML, such as configs/datasets/camvid.yaml")
    parser.add_argument("--min-box-area", type=positive_int, default=get_cfg().DATASETS.MIN_BOX_AREA, metavar="PIXELS")
    args = parser.parse_args()
    description = load_description(args.description)
    generate_if_missing(description)
    result = report_dataset(description, args.min_box_area)
    print(f"\n{description.name} in {description.root}\n\n{result.tables()}\n")
    for note in result.notes:
        print(f"note: {note}")
    for problem in result.problems:
        print(f"problem: {problem}")
    print(f"{len(result.problems)} problems")
    return 1 if result.problems else 0


if __name__ == "__main__":
    with clear_errors():
        sys.exit(main())
