#!/usr/bin/env python
"""Print the evaluations of runs as rows of a table of runs, without its first line.

`tools/record_runs.py output/digits --study digits --commit 5c35f69 >> results/runs.csv` reads FOLDER/NAME_sSEED, each
with the metrics.json, config.yaml and log.txt that a training left: mIoU, the IoU of each class, and box AP50.
"""

import argparse
import csv
import math
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from wpl_d2.engine import find_runs, read_metrics
from wpl_d2.utils.errors import InputError, clear_errors
from wpl_d2.utils.files import read_text, read_yaml

_FIGURE = re.compile(r"(?:(\w+)/)?(?:sem_seg|bbox)/(mIoU|IoU-.+|AP50)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds a folder for each run, NAME_sSEED")
    parser.add_argument("--study", required=True, help="what the runs belong to")
    parser.add_argument("--commit", required=True, help="of the code that they ran")
    args = parser.parse_args()
    table = csv.writer(sys.stdout, lineterminator="\n")
    for name, seed, file in find_runs(args.folder):
        config, command = read_yaml(beside(file, "config.yaml")), read_command(beside(file, "log.txt"))
        for step, figures in evaluations(file, config):
            table.writerow([args.study, name, seed, step, args.commit, command, figures])


def beside(metrics: Path, name: str) -> Path:
    """Another file of the same run.

    Raises:
        InputError: it is missing.
    """
    file = metrics.with_name(name)
    if not file.is_file():
        raise InputError(f"{file}: is missing; leave this run out, or train it again")
    return file


def read_command(log: Path) -> str:
    """The command that the first line of a log has, without the run's own seed and folder.

    Raises:
        InputError: there is none.
    """
    found = re.search(r"INFO: (.+)", read_text(log).partition("\n")[0])
    if not found:
        raise InputError(f"{log}: does not begin with the command of a training; leave this run out, or mend it")
    words = shlex.split(found[1])
    for own in ("SEED", "OUTPUT_DIR"):
        if own in words:
            del words[words.index(own) : words.index(own) + 2]
    return shlex.join(words)


def evaluations(metrics: Path, config: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """How many steps had been taken at each evaluation, and its figures as `key=value key=value`."""
    tested, last = config["DATASETS"]["TEST"], config["SOLVER"]["MAX_ITER"]
    figures: dict[int, dict[str, float]] = defaultdict(dict)
    for row in read_metrics(metrics):
        # The evaluation after the last step is written with the number of steps, the others with that of the step.
        step = min(int(row["iteration"]) + 1, last)
        figures[step] |= named_figures(row, tested)
    for step, found in sorted(figures.items()):
        mean_first = sorted(found.items(), key=lambda figure: not figure[0].endswith("mIoU"))
        if found:
            yield step, " ".join(f"{key}={value:.3f}" for key, value in mean_first)


def named_figures(row: dict[str, float], tested: Collection[str]) -> dict[str, float]:
    """The figures of a row of metrics.json by data set and name; a key without a data set is of the first one."""
    names = list(tested)
    found = {key: match for key in row if (match := _FIGURE.fullmatch(key)) and (match[1] or names[0]) in names}
    return {f"{m[1] or names[0]}/{m[2]}": row[key] for key, m in found.items() if not math.isnan(row[key])}


if __name__ == "__main__":
    with clear_errors():
        main()
