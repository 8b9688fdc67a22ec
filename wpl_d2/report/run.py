"""What the folder of a run holds, finished or not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ..config.layers import flatten
from ..engine import is_finished, last_value, read_metrics
from ..engine.runs import Row
from ..evaluation.image_counts import FILE, ImageCounts
from ..modeling.model_metadata import read_config
from ..utils.errors import InputError
from .evidence import EVIDENCE, FOLDER

_RECORD = re.compile(r"\[\d\d/\d\d \d\d:\d\d:\d\d\] (\S+) (\w+): (.*)")
_SEED_OF_NAME = re.compile(r"[_-]s(eed)?\d+$")
Json = TypeVar("Json", dict[str, Any], list[Any])
_MODELS = ("teacher", "student")

MIOU, BOX_AP = "sem_seg/mIoU", "bbox/AP"


@dataclass(frozen=True)
class Run:
    """What a run left so far; whatever is missing is empty or None.

    Attributes:
        folder: `OUTPUT_DIR`.
        settings: values by the names of their keys, of config.yaml.
        config: the text of config.yaml.
        rows: of metrics.json by iteration, rising; of steps that were repeated after a resume the later ones.
        counts: of the first test set by the first model, of the last evaluation.
        evidence: of `gather_evidence`.
        fitted: the settings that were derived from the data: "key", "value" and "reason" each.
        log: the lines of log.txt.
    """

    folder: Path
    settings: Mapping[str, Any]
    config: str
    rows: list[Row]
    counts: ImageCounts | None
    evidence: Mapping[str, Any]
    fitted: list[dict[str, Any]]
    log: list[str]

    @cached_property
    def name(self) -> str:
        """The folder's name, without the seed at its end."""
        return _SEED_OF_NAME.sub("", self.folder.absolute().name)

    @property
    def seed(self) -> int | None:
        """SEED."""
        return self.settings.get("SEED")

    @property
    def labeled(self) -> str:
        """The names of DATASETS.TRAIN."""
        return ", ".join(self.settings.get("DATASETS.TRAIN", ()))

    @property
    def recipe(self) -> str:
        """Equal for runs that differ alone by seed, folder, and which images are labeled, if these are equally many."""
        other = {"SEED", "OUTPUT_DIR"}
        if images := self.evidence.get("labeled", {}).get("images"):
            other |= {"DATASETS.TRAIN", "DATASETS.UNLABELED", "DATASETS.SPLIT"}
        return repr((images, sorted((key, value) for key, value in self.settings.items() if key not in other)))

    @property
    def is_supervised(self) -> bool:
        """Whether it learned from labels alone."""
        return self.settings.get("FRAMEWORK.NAME") in ("Supervised", "SupervisedEMA")

    @property
    def metric(self) -> str:
        """The figure that counts: mIoU, or the box AP of a detector alone."""
        return BOX_AP if self.settings.get("MODEL.DETECTOR.MODE") == "alone" else MIOU

    @property
    def figure(self) -> float | None:
        """The last value of `metric`."""
        return last_value(self.rows, self.metric)

    @property
    def finished(self) -> bool:
        """Whether the last step was trained."""
        return is_finished(self.rows)

    @property
    def steps(self) -> int:
        """The number of trained steps that metrics.json knows of."""
        trained = [row["iteration"] for row in self.rows if "total_loss" in row]
        return int(max(trained, default=-1)) + 1

    @property
    def max_steps(self) -> int | None:
        """SOLVER.MAX_ITER."""
        return self.settings.get("SOLVER.MAX_ITER")

    @property
    def commands(self) -> list[str]:
        """The command lines of the run and of its resumes."""
        lines = zip(self.log, self.log[1:], strict=False)
        found = [match[3] for line, after in lines if after.startswith("  device: ") and (match := _RECORD.match(line))]
        return list(dict.fromkeys(found))

    @property
    def warnings(self) -> list[str]:
        """What the log warns of, each once."""
        found = [match[3] for line in self.log if (match := _RECORD.match(line)) and match[2] == "WARNING"]
        return list(dict.fromkeys(found))


def read_run(folder: Path) -> Run:
    """Read the folder of a run.

    Raises:
        InputError: it is none, or a file in it is damaged.
    """
    config, metrics = folder / "config.yaml", folder / "metrics.json"
    if not config.is_file() and not metrics.is_file():
        raise InputError(f"{folder}: {_no_run(folder)}")
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    settings = dict(flatten(read_config(text, str(config)))) if text else {}
    rows: dict[float, dict[str, float]] = {}
    for row in read_metrics(metrics):
        rows.setdefault(row["iteration"], {}).update(row)
    log = folder / "log.txt"
    return Run(
        folder,
        settings,
        text,
        [rows[iteration] for iteration in sorted(rows)],
        _read_counts(folder, next(iter(settings.get("DATASETS.TEST", ())), "*")),
        _read_json(folder / FOLDER / EVIDENCE, {}),
        _read_json(folder / "fitted.json", []),
        log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else [],
    )


def _no_run(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder; give the OUTPUT_DIR of a training"
    below = sorted(file.parent for file in folder.glob("*/config.yaml"))
    mend = f"such as {below[0]}" if below else "with its config.yaml and metrics.json"
    return f"is not the folder of a run; give one that a training wrote, {mend}"


def _read_counts(folder: Path, test: str) -> ImageCounts | None:
    files = sorted((folder / "inference").glob(f"{test}/*/{FILE}"))
    files.sort(key=lambda file: _MODELS.index(file.parent.name) if file.parent.name in _MODELS else len(_MODELS))
    return ImageCounts.load(files[0]) if files else None


def _read_json(file: Path, missing: Json) -> Json:
    """What a file holds; `missing` where it is not there, or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return missing
    return content if isinstance(content, type(missing)) else missing
