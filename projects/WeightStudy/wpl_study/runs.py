"""A run, one row on one draw: its config, and the commands that train and judge it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from wpl_d2.config import load_cfg
from wpl_d2.config.layers import IN_EPOCHS, value_of
from wpl_d2.data import setup_datasets
from wpl_d2.engine.solver import resolve_epochs, scale_schedule
from wpl_d2.frameworks import FRAMEWORK_REGISTRY
from wpl_d2.utils.errors import InputError, check_name

from .oracle import host_of, oracles
from .study import BOXES, DRAW, REPOSITORY, Detector, Draw, Judge, Row, Settings, Study

PROJECT = Path(__file__).resolve().parents[1]
LAST = "model_final.pth"
_NEVER = "1000000000"
"""More steps than any training has: it is evaluated at its end alone, and keeps all checkpoints to be judged."""

Command = tuple[str, ...]
"""A Python file and its arguments."""


class Judging(NamedTuple):
    """The file of measured pseudo-labels, the checkpoint whose labels they are, and the command that makes it."""

    file: Path
    checkpoint: Path
    command: Command


@dataclass(frozen=True)
class Run:
    """A row on a draw.

    Attributes:
        study: of both.
        row: what is trained.
        draw: on what.
        root: the folder of all runs of the study.
    """

    study: Study
    row: Row
    draw: Draw
    root: Path

    @property
    def name(self) -> str:
        """As it is shown, and below the root as its folder."""
        return f"{self.row.name}/{self.draw.name}"

    @property
    def key(self) -> tuple[str, str]:
        """Names of row and draw."""
        return self.row.name, self.draw.name

    @property
    def folder(self) -> Path:
        """Where it leaves its files."""
        return self.root / self.name

    @property
    def boxes(self) -> Path:
        """The file of the draw's cached boxes; a row's name cannot begin as its folder does."""
        return self.root / "_detector" / self.draw.name / "boxes.npz"

    @property
    def unlabeled(self) -> str:
        """Name of the list of unlabeled images."""
        return self.study.lists.unlabeled.replace(DRAW, self.draw.suffix)

    @cached_property
    def config(self) -> Any:
        """The config of its training, without what a study sets beside the lists.

        Raises:
            InputError: a key or a value that does not exist, or a step to judge of which there will be no checkpoint.
        """
        lists = self.study.lists
        own = {
            "DATASETS.TRAIN": _names(lists.labeled.replace(DRAW, self.draw.suffix)),
            "DATASETS.UNLABELED": _names(self.unlabeled),
            "DATASETS.TEST": _names(lists.dev, lists.val),
        }
        cfg = load_cfg(str(self.study.base), words(self.row.settings | own))
        check_name("FRAMEWORK.NAME", cfg.FRAMEWORK.NAME, [*(name for name, _ in FRAMEWORK_REGISTRY), *oracles()])
        if not FRAMEWORK_REGISTRY.get(host_of(cfg.FRAMEWORK.NAME)).semi_supervised:
            cfg.DATASETS.UNLABELED = ()
        if any(value_of(cfg, key) for key in IN_EPOCHS):
            setup_datasets(cfg)
            resolve_epochs(cfg)
        scale_schedule(cfg, given=self.row.settings.keys())
        solver = cfg.SOLVER
        for step in self.study.judge.steps if self.study.judge else ():
            if not solver.CHECKPOINT_PERIOD or step % solver.CHECKPOINT_PERIOD or step > solver.MAX_ITER:
                raise InputError(
                    f"judge: steps: there is no checkpoint after step {step}; take a multiple of "
                    f"SOLVER.CHECKPOINT_PERIOD, {solver.CHECKPOINT_PERIOD}, up to SOLVER.MAX_ITER, {solver.MAX_ITER}"
                )
        return cfg

    @property
    def settings(self) -> Settings:
        """What it has over the base preset, but for the folder it writes to; {boxes} is as in the study.

        Raises:
            InputError: see `config`.
        """
        own = {
            **{f"DATASETS.{key}": _names(*self.config.DATASETS[key]) for key in ("TRAIN", "UNLABELED", "TEST")},
            "TEST.STUDENT": "True",
            "TEST.EVAL_PERIOD": _NEVER,
            "SOLVER.CHECKPOINTS_TO_KEEP": _NEVER,
            "SEED": str(self.draw.seed),
        }
        return self.row.settings | own

    @property
    def training(self) -> Command:
        """Trains it, or goes on where it was stopped."""
        tool = PROJECT / "train_oracle.py" if self.row.oracle else REPOSITORY / "tools" / "train_net.py"
        own = words({**self._filled_in(), "OUTPUT_DIR": str(self.folder)})
        return (*call(tool, self.study.base), "--resume", *own)

    def judgings(self) -> list[Judging]:
        """What is to be measured of its pseudo-labels; nothing where the study does not ask for it."""
        if (judge := self.study.judge) is None:
            return []
        return [self._judging(judge, step) for step in sorted({*judge.steps, self.config.SOLVER.MAX_ITER})]

    def _judging(self, judge: Judge, step: int) -> Judging:
        last = step == self.config.SOLVER.MAX_ITER
        checkpoint = self.folder / (LAST if last else f"model_{step - 1:07d}.pth")
        file = judged_file(self.folder, step, judge.images)
        keys = self._filled_in() | {
            "FRAMEWORK.NAME": host_of(self.config.FRAMEWORK.NAME),
            "MODEL.WEIGHTS": str(checkpoint),
            "OUTPUT_DIR": str(self.folder / "judged"),
        }
        tool = call(REPOSITORY / "tools" / "judge_pseudo_labels.py", self.study.base)
        what = ("--dataset", self.unlabeled, "--images", str(judge.images), "--scores", "--output", str(file))
        return Judging(file, checkpoint, (*tool, *what, *words(keys)))

    def _filled_in(self) -> Settings:
        return {key: value.replace(BOXES, str(self.boxes)) for key, value in self.settings.items()}

    def detector_commands(self, detector: Detector) -> tuple[tuple[Path, Command], ...]:
        """What the draw's boxes need, in order: the file that a command leaves, and the command."""
        folder = self.boxes.parent
        lists = self.study.lists
        keys = detector.overrides | {
            "DATASETS.TRAIN": _names(lists.labeled.replace(DRAW, self.draw.suffix)),
            "DATASETS.TEST": _names(lists.dev),
            "TEST.EVAL_PERIOD": _NEVER,
            "SEED": str(self.draw.seed),
            "OUTPUT_DIR": str(folder),
        }
        train = (*call(REPOSITORY / "tools" / "train_net.py", detector.base), "--resume", *words(keys))
        keep = ("--weights", str(folder / LAST), "--dataset", self.unlabeled, "--output", str(self.boxes))
        return (folder / LAST, train), (self.boxes, (*call(REPOSITORY / "tools" / "cache_boxes.py"), *keep))


def select(study: Study, root: Path, rows: Iterable[str] = (), draws: Iterable[str] = ()) -> list[Run]:
    """The runs of some rows and draws, row by row.

    Args:
        study: of them.
        root: the folder of all runs.
        rows: names; none: all.
        draws: likewise.

    Raises:
        InputError: there is no row or draw of a name.
    """
    chosen_rows = [study.rows[check_name("--rows", name, study.rows)] for name in rows or study.rows]
    chosen_draws = [study.draws[check_name("--draws", name, study.draws)] for name in draws or study.draws]
    return [Run(study, row, draw, root) for row in chosen_rows for draw in chosen_draws]


def judged_file(folder: Path, step: int, images: int) -> Path:
    """Where the judged pseudo-labels of a run are.

    Args:
        folder: of the run.
        step: after which they were judged.
        images: how many they are of.
    """
    return folder / f"judged_{step:07d}_{images}.json"


def words(settings: Settings) -> list[str]:
    """Settings as the end of a command line."""
    return [word for pair in settings.items() for word in pair]


def call(tool: Path, config: Path | None = None) -> Command:
    """The beginning of a command as it is called from the current folder."""
    begin = (os.path.relpath(tool),)
    return begin if config is None else (*begin, "--config-file", os.path.relpath(config))


def _names(*names: str) -> str:
    """A tuple of names as a value on the command line; "" is left out."""
    return json.dumps([name for name in names if name])
