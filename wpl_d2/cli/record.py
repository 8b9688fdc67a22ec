"""Print the evaluations of runs as rows of a table of runs, without its first line.

`wpl record output/digits --study digits --commit 5c35f69 >> results/runs.csv` reads FOLDER/NAME_sSEED, each
with the metrics.json, config.yaml and log.txt that a training left: mIoU, the IoU of each class, and box AP50.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..utils.errors import InputError

_FIGURE = re.compile(r"(?:(\w+)/)?(?:sem_seg|bbox)/(mIoU|IoU-.+|AP50)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", type=Path, help="holds a folder for each run, NAME_sSEED")
    parser.add_argument("--study", required=True, help="what the runs belong to")
    parser.add_argument("--commit", required=True, help="of the code that they ran")


def main(args: argparse.Namespace) -> None:
    """Print runs as rows of a table."""
    from ..engine import find_runs
    from ..utils.files import read_yaml

    table = csv.writer(sys.stdout, lineterminator="\n")
    for name, seed, file in find_runs(args.folder):
        config, command = read_yaml(_beside(file, "config.yaml")), _read_command(_beside(file, "log.txt"))
        for step, figures in _evaluations(file, config):
            table.writerow([args.study, name, seed, step, args.commit, command, figures])


def _beside(metrics: Path, name: str) -> Path:
    """Another file of the same run.

    Raises:
        InputError: it is missing.
    """
    file = metrics.with_name(name)
    if not file.is_file():
        raise InputError(f"{file}: is missing; leave this run out, or train it again")
    return file


def _read_command(log: Path) -> str:
    """The command that the first line of a log has, without the run's own seed and folder.

    Raises:
        InputError: there is none.
    """
    from ..utils.files import read_text

    found = re.search(r"INFO: (.+)", read_text(log).partition("\n")[0])
    if not found:
        raise InputError(f"{log}: does not begin with the command of a training; leave this run out, or mend it")
    words = shlex.split(found[1])
    for own in ("SEED", "OUTPUT_DIR"):
        if own in words:
            del words[words.index(own) : words.index(own) + 2]
    return shlex.join(words)


def _evaluations(metrics: Path, config: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """How many steps had been taken at each evaluation, and its figures as `key=value key=value`."""
    from ..engine import read_metrics

    tested, last = config["DATASETS"]["TEST"], config["SOLVER"]["MAX_ITER"]
    figures: dict[int, dict[str, float]] = defaultdict(dict)
    for row in read_metrics(metrics):
        # The evaluation after the last step is written with the number of steps, the others with that of the step.
        step = min(int(row["iteration"]) + 1, last)
        figures[step] |= _named_figures(row, tested)
    for step, found in sorted(figures.items()):
        mean_first = sorted(found.items(), key=lambda figure: not figure[0].endswith("mIoU"))
        if found:
            yield step, " ".join(f"{key}={value:.3f}" for key, value in mean_first)


def _named_figures(row: Mapping[str, float], tested: Collection[str]) -> dict[str, float]:
    """The figures of a row of metrics.json by data set and name; a key without a data set is of the first one."""
    names = list(tested)
    found = {key: match for key in row if (match := _FIGURE.fullmatch(key)) and (match[1] or names[0]) in names}
    return {f"{m[1] or names[0]}/{m[2]}": row[key] for key, m in found.items() if not math.isnan(row[key])}
