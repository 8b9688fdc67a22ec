"""Tables of runs: read from their folders or from a CSV, and written as mean and spread over seeds."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..utils.errors import InputError, check_name
from .runs import Spread, find_runs, last_value, paired_differences, read_metrics

_COLUMNS = {"study", "run", "seed", "figures"}
Values = dict[int, float]
"""A figure by seed."""
Runs = dict[str, dict[str, Values]]
"""What is known of each run, by its name and the figure's key."""


def read_folder(folder: Path, keys: Sequence[str]) -> Runs:
    """The last values in the metrics.json of each run of a folder.

    Raises:
        InputError: it holds no runs.
    """
    runs: Runs = defaultdict(lambda: defaultdict(dict))
    for name, seed, file in find_runs(folder):
        measured = read_metrics(file)
        for key in keys:
            if (value := last_value(measured, key)) is not None:
                runs[name][key][seed] = value
    return runs


def read_table(file: Path, study: str | None) -> Runs:
    """The figures of the last step of each run and seed in a table.

    Args:
        file: CSV with the columns study, run, seed, step (rising within a run) and figures (`key=value key=value`).
        study: whose rows are read; needed where there are several.

    Raises:
        InputError: it is missing or no such table, or has no such study.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file; give a table of runs, such as results/runs.csv")
    with file.open(newline="") as opened:
        table = list(csv.DictReader(opened))
    if not table or not table[0].keys() >= _COLUMNS:
        raise InputError(f"{file}: is not a table of runs; its first line must name {', '.join(sorted(_COLUMNS))}")
    studies = sorted({row["study"] for row in table})
    if study is None and len(studies) > 1:
        raise InputError(f"--study: is missing; {file} has {', '.join(studies)}")
    study = check_name("--study", study or studies[0], studies)
    runs: Runs = defaultdict(lambda: defaultdict(dict))
    for row in table:
        if row["study"] == study:
            for key, _, value in (pair.partition("=") for pair in row["figures"].split()):
                runs[row["run"]][key][int(row["seed"])] = float(value)
    return runs


def headers(keys: Sequence[str]) -> list[str]:
    """The titles of the columns."""
    of_one = ["mean", "standard deviation", f"{keys[0]} by seed"]
    return ["run", "seeds", *(of_one if len(keys) == 1 else keys)]


def rows(runs: Runs, keys: Sequence[str], baseline: str | None) -> Iterator[list[str]]:
    """A row for each run that has one of the figures, and behind it one for its differences to the baseline."""
    for name, figures in runs.items():
        if any(figures.get(key) for key in keys):
            yield [name, *_describe([figures.get(key, {}) for key in keys])]
        if baseline and name != baseline:
            base: Mapping[str, Values] = runs[baseline]
            pairs = [paired_differences(figures.get(key, {}), base.get(key, {})) for key in keys]
            yield [f"minus {baseline}", *_describe(pairs)]


def _describe(columns: Sequence[Values]) -> list[str]:
    """The number of seeds; then of one figure mean, deviation and each value, of several mean and deviation alone."""
    spreads = [Spread.of(values.values()) for values in columns]
    seeds = str(max(spread.count for spread in spreads))
    if len(columns) > 1:
        return [seeds, *(" ± ".join(filter(None, _numbers(spread))) for spread in spreads)]
    return [
        seeds,
        *_numbers(spreads[0]),
        ", ".join(f"{seed}: {value:.2f}" for seed, value in sorted(columns[0].items())),
    ]


def _numbers(spread: Spread) -> list[str]:
    """Mean and deviation, "" where there is none."""
    return ["" if math.isnan(figure) else f"{figure:.2f}" for figure in (spread.mean, spread.deviation)]
