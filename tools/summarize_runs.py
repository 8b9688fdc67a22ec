#!/usr/bin/env python
"""Mean and spread over seeds of the last evaluation of runs.

`tools/summarize_runs.py results/camvid` reads FOLDER/NAME_sSEED/metrics.json and prints a row for each NAME; with
`--baseline NAME` also the differences to that run, seed by seed.
"""

import argparse
import math
import re
from collections import defaultdict
from pathlib import Path

from tabulate import tabulate

from wpl_d2.engine import Spread, last_value, paired_differences, read_metrics
from wpl_d2.errors import check_name, clear_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="holds a folder for each run, NAME_sSEED")
    parser.add_argument("--key", default="sem_seg/mIoU", help="the metric")
    parser.add_argument("--baseline", metavar="NAME", help="the run to which the others are compared")
    args = parser.parse_args()
    runs: dict[str, dict[int, float]] = defaultdict(dict)
    for metrics in sorted(args.folder.glob("*/metrics.json")):
        named = re.fullmatch(r"(.+)_s(\d+)", metrics.parent.name)
        value = last_value(read_metrics(metrics), args.key)
        if named and value is not None:
            runs[named[1]][int(named[2])] = value
    if args.baseline:
        check_name("--baseline", args.baseline, runs)
    rows = []
    for name, values in runs.items():
        rows.append([name, *describe(values)])
        if args.baseline and name != args.baseline:
            base = runs[args.baseline]
            rows.append([f"  minus {args.baseline}", *describe(paired_differences(values, base))])
    print(tabulate(rows, ["run", "seeds", "mean", "standard deviation", f"{args.key} by seed"], disable_numparse=True))


def describe(values: dict[int, float]) -> list[str]:
    """Number, mean, standard deviation and all of the values by seed."""
    spread = Spread.of(values.values())
    figures = ["" if math.isnan(figure) else f"{figure:.2f}" for figure in (spread.mean, spread.deviation)]
    each = " ".join(f"{seed}: {value:.2f}" for seed, value in sorted(values.items()))
    return [str(spread.count), *figures, each]


if __name__ == "__main__":
    with clear_errors():
        main()
