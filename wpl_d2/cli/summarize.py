r"""Mean and spread over seeds of what runs reached at their end, as a Markdown table.

`wpl summarize output/fields` reads FOLDER/NAME_sSEED/metrics.json and prints a row for each NAME; with
`--baseline NAME` also the differences to that run, seed by seed. A table of runs such as results/runs.csv does as well:

    wpl summarize results/runs.csv --study camvid_half --runs supervised mean_teacher \
        --key camvid_dev/mIoU camvid_val/mIoU

Several keys are columns side by side; of one, the value of each seed is shown too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..utils.errors import InputError, check_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("source", type=Path, help="a folder that holds a folder for each run, NAME_sSEED; or a .csv")
    parser.add_argument("--key", nargs="+", default=["sem_seg/mIoU"], help="figures, a column each")
    parser.add_argument("--baseline", metavar="NAME", help="the run to which the others are compared")
    parser.add_argument("--runs", nargs="+", metavar="NAME", help="these alone, in this order")
    parser.add_argument("--study", help="of a .csv: the rows of this study alone")


def main(args: argparse.Namespace) -> None:
    """Print a table of runs."""
    from tabulate import tabulate

    from ..engine.run_table import headers, read_folder, read_table, rows

    of_table = args.source.suffix == ".csv"
    if args.study and not of_table:
        raise InputError(f"--study: {args.source} is a folder of runs, which belong together; leave it out")
    runs = read_table(args.source, args.study) if of_table else read_folder(args.source, args.key)
    for name in args.runs or ():
        check_name("--runs", name, runs)
    runs = {name: runs[name] for name in args.runs or runs}
    for key in args.key:
        if not any(figures.get(key) for figures in runs.values()):
            raise InputError(f"{args.source}: no run has measured {key}; give --key the name of another figure")
    if args.baseline:
        check_name("--baseline", args.baseline, runs)
    print(tabulate(rows(runs, args.key, args.baseline), headers(args.key), "github", disable_numparse=True))
