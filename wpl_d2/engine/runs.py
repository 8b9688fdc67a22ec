"""What trainings left behind: the rows of their metrics.json, and what several trainings say together."""

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
    """What a file of results, or a line of it, says.

    Args:
        text: JSON.
        file: where it is from, for the message.

    Raises:
        InputError: it is damaged.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: is damaged ({error}); mend its last line, or move the folder away") from error


def read_metrics(file: Path) -> list[Row]:
    """The rows of a training's metrics.json, oldest first; none where there is no such file.

    Raises:
        InputError: it is damaged.
    """
    return [read_json(line, file) for line in file.read_text().splitlines()] if file.is_file() else []


def last_value(rows: Sequence[Row], key: str) -> float | None:
    """The last value of a metric, None where there is none."""
    return next((row[key] for row in reversed(rows) if key in row), None)


def is_finished(rows: Sequence[Row]) -> bool:
    """Whether a training has taken its last step."""
    return last_value(rows, "eta_seconds") == 0


@dataclass(frozen=True)
class Spread:
    """What several values say together.

    Attributes:
        count: how many there are.
        mean: NaN of none.
        deviation: their standard deviation; NaN of fewer than two.
    """

    count: int
    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of any number of values."""
        some = list(values)
        mean = statistics.mean(some) if some else math.nan
        return cls(len(some), mean, statistics.stdev(some) if len(some) > 1 else math.nan)

    @property
    def t(self) -> float:
        """Student's t of the mean against 0; NaN where there is no deviation to measure it by."""
        return self.mean / self.deviation * math.sqrt(self.count) if self.deviation > 0 else math.nan

    def __str__(self) -> str:
        """Mean, deviation where there is one, and count."""
        if not self.count:
            return ""
        spread = "" if math.isnan(self.deviation) else f" ± {self.deviation:.2f}"
        return f"{self.mean:.2f}{spread} ({self.count})"


def paired_differences(ours: Mapping[Key, float], base: Mapping[Key, float]) -> dict[Key, float]:
    """Ours minus the other's, for each seed (or draw) that both have."""
    return {key: value - base[key] for key, value in ours.items() if key in base}
