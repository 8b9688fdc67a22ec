"""The figures behind report and pictures: what the runs of each row gave, draw by draw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wpl_d2.engine import Spread, paired_differences

from .results import Key, Result, read_judged
from .runs import Run
from .study import Row, Study

ByDraw = dict[str, float]
Judged = dict[str, Spread]
"""Figures of `PseudoLabelEvaluator.evaluate` by name, over the draws on which they are there."""


@dataclass(frozen=True)
class Table:
    """A study with what its finished runs gave.

    Attributes:
        study: the study.
        results: of all runs in the folder; what is of no row or draw of the study is left alone.
        root: that folder.
    """

    study: Study
    results: Mapping[Key, Result]
    root: Path

    def runs(self, row: Row) -> dict[str, Result]:
        """The finished ones of a row, by draw."""
        found = {name: self.results.get((row.name, name)) for name in self.study.draws}
        return {name: result for name, result in found.items() if result is not None}

    def figures(self, row: Row, name: str) -> ByDraw:
        """A numeric field of `Result`, where it is known."""
        values = {draw: getattr(result, name) for draw, result in self.runs(row).items()}
        return {draw: float(value) for draw, value in values.items() if value}

    def scores(self, row: Row, which: str) -> ByDraw:
        """The mIoU on "dev" or "val" of the model to use: the teacher where there is one."""
        values = {draw: result.deployed(which) for draw, result in self.runs(row).items()}
        return {draw: value for draw, value in values.items() if value is not None}

    def pairs(self, row: Row, which: str) -> ByDraw:
        """The same minus that of the row it is compared with, draw by draw; nothing of that row itself."""
        plain = self.study.rows[row.plain]
        return {} if row.name == plain.name else paired_differences(self.scores(row, which), self.scores(plain, which))

    def judged(self, row: Row, step: int | None = None) -> Judged:
        """What is known of a row's pseudo-labels; empty where nothing was measured.

        Args:
            row: of the study.
            step: after which; None: after the last.
        """
        if (judge := self.study.judge) is None:
            return {}
        runs = self.runs(row).values()
        found = [read_judged(self.root, run, step or int(run.steps), judge.images) for run in runs]
        measured = [figures for figures in found if figures]
        names = dict.fromkeys(name for figures in measured for name in figures)
        known = {name: [figures[name] for figures in measured if name in figures] for name in names}
        return {name: Spread.of(v for v in values if not math.isnan(v)) for name, values in known.items()}

    def weighted(self, row: Row) -> bool:
        """Whether its training has weights, so that figures of weighted labels are its own."""
        return self._first[row.name].config.WEIGHTING.ENABLED

    def candidate(self, row: Row) -> bool:
        """Whether it has other weights or labels than the row it is compared with: an answer to which weight is good.

        An oracle is none, nor is a row without weights and without mended labels.
        """
        own, plain = (_weights(self._first[name].config) for name in (row.name, row.plain))
        return bool(own) and own != plain and not row.oracle

    @cached_property
    def _first(self) -> dict[str, Run]:
        """Each row on the first draw, whose config, lists and seed apart, is that of all draws."""
        draw = next(iter(self.study.draws.values()))
        return {name: Run(self.study, row, draw, self.root) for name, row in self.study.rows.items()}


def _weights(cfg: Any) -> dict[str, Any]:
    """What has an effect of the keys of weights and mended labels; empty where neither is on."""
    on = {key: cfg[key] for key in ("WEIGHTING", "RPPI") if cfg[key].ENABLED}
    return on | ({} if cfg.PSEUDO_LABEL.REFINE == "none" else {"PSEUDO_LABEL": cfg.PSEUDO_LABEL})


def auroc_scores(judged: Mapping[str, Judged]) -> list[str]:
    """Names of the scores that were judged in any of some rows."""
    names = dict.fromkeys(name for figures in judged.values() for name in figures if name.startswith("auroc-"))
    return list(dict.fromkeys(name.split("-")[1] for name in names))
