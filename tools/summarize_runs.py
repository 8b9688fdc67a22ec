#!/usr/bin/env python
"""Mean and spread over seeds of the last evaluation of runs.

`tools/summarize_runs.py results/camvid` reads FOLDER/NAME_sSEED/metrics.json and prints a row for each NAME; with
`--baseline NAME` also the differences to that run, seed by seed.
"""

import argparse
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from wpl_d2.engine import Spread, last_value, paired_differences, read_metrics
from wpl_d2.utils.errors import InputError, check_name, clear_errors

_RUN = r"(.+)_s(\d+)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="holds a folder for each run, NAME_sSEED")
    parser.add_argument("--key", default="sem_seg/mIoU", help="the metric")
    parser.add_argument("--baseline", metavar="NAME", help="the run to which the others are compared")
    args = parser.parse_args()
    runs: dict[str, dict[int, float]] = defaultdict(dict)
    found = sorted(args.folder.glob("*/metrics.json"))
    for metrics in found:
        named = re.fullmatch(_RUN, metrics.parent.name)
        value = last_value(read_metrics(metrics), args.key)
        if named and value is not None:
            runs[named[1]][int(named[2])] = value
    if not runs:
        raise InputError(f"{args.folder}: {nothing_found(args.folder, found, args.key)}")
    if args.baseline:
        check_name("--baseline", args.baseline, runs)
    rows = []
    for name, values in runs.items():
        rows.append([name, *describe(values)])
        if args.baseline and name != args.baseline:
            base = runs[args.baseline]
            rows.append([f"  minus {args.baseline}", *describe(paired_differences(values, base))])
    print(tabulate(rows, ["run", "seeds", "mean", "standard deviation", f"{args.key} by seed"], disable_numparse=True))


def nothing_found(folder: Path, metrics: Sequence[Path], key: str) -> str:
    """Why no run can be summarised, and how to mend it."""
    if not folder.is_dir():
        return "no such folder; give one that holds a folder for each run"
    layout = "runs are FOLDER/NAME_sSEED/metrics.json, such as results/camvid/mean_teacher_s0/metrics.json"
    if not metrics:
        itself = (folder / "metrics.json").is_file()
        return f"is itself a run; give the folder above it ({layout})" if itself else f"holds no runs; {layout}"
    if all(re.fullmatch(_RUN, file.parent.name) is None for file in metrics):
        return f"holds no run with a seed in its name, but {metrics[0].parent.name}; {layout}"
    return f"no run has measured {key}; give --key another name out of a metrics.json"


def describe(values: dict[int, float]) -> list[str]:
    """Number, mean, standard deviation and all of the values by seed."""
    spread = Spread.of(values.values())
    figures = ["" if math.isnan(figure) else f"{figure:.2f}" for figure in (spread.mean, spread.deviation)]
    each = " ".join(f"{seed}: {value:.2f}" for seed, value in sorted(values.items()))
    return [str(spread.count), *figures, each]


if __name__ == "__main__":
    with clear_errors():
        main()
