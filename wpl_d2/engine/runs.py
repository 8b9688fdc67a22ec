"""Reading the metrics.json of trainings, and statistics over several trainings."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..utils.errors import InputError

Row = Mapping[str, float]
Key = TypeVar("Key", bound=Hashable)


def read_json(text: str, file: Path) -> Any:
    """Parse JSON of a results file, or of one of its lines.

    Args:
        text: JSON.
        file: its file, for the message.

    Raises:
        InputError: it is damaged.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: is damaged ({error}); mend its last line, or move the folder away") from error


def read_metrics(file: Path) -> list[Row]:
    """Read the rows of a training's metrics.json, oldest first; none if there is no such file.

    Raises:
        InputError: it is damaged.
    """
    return [read_json(line, file) for line in file.read_text().splitlines()] if file.is_file() else []


def find_runs(folder: Path) -> list[tuple[str, int, Path]]:
    """Name, seed and metrics.json of the runs FOLDER/NAME_sSEED; folders of other names are left out.

    Raises:
        InputError: there are none.
    """
    found = sorted(folder.glob("*/metrics.json"))
    named = [(re.fullmatch(r"(.+)_s(\d+)", file.parent.name), file) for file in found]
    if runs := [(name[1], int(name[2]), file) for name, file in named if name]:
        return runs
    layout = "runs are FOLDER/NAME_sSEED/metrics.json, such as output/fields/mean_teacher_s0/metrics.json"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that holds a folder for each run")
    if found:
        raise InputError(f"{folder}: holds no run with a seed in its name, but {found[0].parent.name}; {layout}")
    if (folder / "metrics.json").is_file():
        raise InputError(f"{folder}: is itself a run; give the folder above it ({layout})")
    raise InputError(f"{folder}: holds no runs; {layout}")


def last_value(rows: Sequence[Row], key: str) -> float | None:
    """The last value of a metric, or None."""
    return next((row[key] for row in reversed(rows) if key in row), None)


def is_finished(rows: Sequence[Row]) -> bool:
    """Whether a training has completed its last step."""
    return last_value(rows, "eta_seconds") == 0


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of several values.

    Attributes:
        count: number of values.
        mean: NaN without values.
        deviation: sample standard deviation; NaN of fewer than two values.
    """

    count: int
    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Compute them of any number of values."""
        some = list(values)
        mean = statistics.mean(some) if some else math.nan
        return cls(len(some), mean, statistics.stdev(some) if len(some) > 1 else math.nan)

    @property
    def t(self) -> float:
        """Student's t of the mean against 0; NaN without a positive deviation."""
        return self.mean / self.deviation * math.sqrt(self.count) if self.deviation > 0 else math.nan

    def __str__(self) -> str:
        """Mean, deviation (if defined) and count."""
        if not self.count:
            return ""
        spread = "" if math.isnan(self.deviation) else f" ± {self.deviation:.2f}"
        return f"{self.mean:.2f}{spread} ({self.count})"


def paired_differences(ours: Mapping[Key, float], base: Mapping[Key, float]) -> dict[Key, float]:
    """Ours minus the baseline's, for each seed (or draw) that both have."""
    return {key: value - base[key] for key, value in ours.items() if key in base}
