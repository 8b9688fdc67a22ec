"""Reading the metrics.json of trainings, and statistics over several trainings."""

from __future__ import annotations

import json
import math
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
