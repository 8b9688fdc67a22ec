"""One page on a run, or on several side by side: what it reached, how sure that is, and where it fails.

wpl report output/fields
wpl report output/fields_s? --output fields.html

Every training ends with the report of its own run. The page is one file that needs no network; its numbers are in a
.json beside it. A run that was stopped half-way shows what there is.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a training (OUTPUT_DIR)")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the page; by default report.html in the folder that holds the runs"
    )
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="evaluate the final model of runs that kept no counts by image or no pictures, on the first test set",
    )


def main(args: argparse.Namespace) -> None:
    """Write the report."""
    from ..report import default_page, evaluate_run, lacks_evidence, write_report
    from ..utils.files import make_output_parent

    page = args.output or default_page(args.runs)
    make_output_parent("--output", page)
    for folder in filter(lacks_evidence, args.runs if args.evaluate else ()):
        evaluate_run(folder)
    report = write_report(args.runs, page)
    verdicts = [f"{run['name']}: {run['verdict']['headline']}" for run in report["runs"]]
    print("\n".join([*verdicts, f"report: {page}"]))
