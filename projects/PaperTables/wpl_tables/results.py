"""What runs left behind: the figures of their evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from wpl_d2.engine import is_finished, read_json, read_metrics

from .tables import Cell

BEST_BY = "sem_seg/mIoU"
"""What tells the best evaluation of a training, as it does for the checkpoint `model_best.pth`."""

Row = Mapping[str, float]


@dataclass
class Measured:
    """What the runs of one recipe give for one figure, in percent by seed.

    Attributes:
        best: at the evaluation with the best mIoU, which is what the hosts report.
        last: at the last evaluation.
        unfinished: folders of trainings that have not come to their last step; they count nowhere.
    """

    best: dict[int, float] = field(default_factory=dict)
    last: dict[int, float] = field(default_factory=dict)
    unfinished: list[Path] = field(default_factory=list)


def measure(cell: Cell, root: Path) -> Measured:
    """Read what has been run for a figure.

    Args:
        cell: where there is no run for it, nothing is found.
        root: of all runs.

    Raises:
        InputError: a file of results is damaged.
    """
    measured = Measured()
    for seed, folder in _seeds(root / cell.run) if cell.run else ():
        best, last, finished = read_run(folder)
        if not finished:
            measured.unfinished.append(folder)
            continue
        for values, row in ((measured.best, best), (measured.last, last)):
            # A class that no image shows has no IoU.
            if not math.isnan(value := row.get(cell.metric, math.nan)):
                values[seed] = value
    return measured


@cache
def read_run(folder: Path) -> tuple[Row, Row, bool]:
    """The results of one run.

    Args:
        folder: holds metrics.json, or the judged.json of `tools/judge_pseudo_labels.py`.

    Returns:
        the best and the last evaluation, empty where there is none, and whether the run came to its end.

    Raises:
        InputError: a file is damaged.
    """
    if (folder / "judged.json").is_file():
        return {}, _read_judged(folder / "judged.json"), True
    rows = read_metrics(folder / "metrics.json")
    evaluations = [row for row in rows if BEST_BY in row]
    if not is_finished(rows) or not evaluations:
        return {}, {}, False
    return max(evaluations, key=lambda row: row[BEST_BY]), evaluations[-1], True


def _seeds(folder: Path) -> list[tuple[int, Path]]:
    found = [(path.name.removeprefix("seed_"), path) for path in folder.glob("seed_*")]
    return sorted((int(seed), path) for seed, path in found if seed.isdecimal())


def _read_judged(file: Path) -> Row:
    """The figures of boxes and pixels as "boxes/SCORE/CLASS/FIGURE"."""
    judged = read_json(file.read_text(), file)
    return {
        f"boxes/{score}/{name}/{figure}": value
        for score, rows in judged["boxes"].items()
        for name, figures in rows.items()
        for figure, value in figures.items()
    }
