"""A learning rate to train with, found by a short training in which it rises (Smith, WACV 2017, arXiv:1506.01186)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.engine import HookBase, hooks
from scipy.ndimage import gaussian_filter1d

from ..utils.files import replace_file
from .early_stopping import EarlyEnd
from .hooks import AfterStep, StopOnSignal
from .trainer import Trainer

_WIDTH = 0.04
"""Standard deviation of the Gaussian that smooths the losses, as a share of their number."""
_DIVERGED = 4.0
"""Losses of so many times the least one end the search."""


@dataclass(frozen=True)
class LRCurve:
    """The losses of a training whose learning rate rises.

    Attributes:
        rates: SOLVER.BASE_LR of each step.
        losses: the total loss of each step.
    """

    rates: list[float]
    losses: list[float]

    @property
    def smoothed(self) -> np.ndarray:
        """The losses without most of their noise, and not delayed."""
        return gaussian_filter1d(np.array(self.losses), max(1.0, _WIDTH * len(self.losses)), mode="nearest")

    @property
    def diverged(self) -> bool:
        """Whether the last losses are far above the least one."""
        return bool(np.median(self.losses[-3:]) > _DIVERGED * self.smoothed.min())

    @property
    def suggestion(self) -> float:
        """The rate at which the smoothed loss falls fastest, before its minimum."""
        smoothed = self.smoothed
        falling = max(2, int(smoothed.argmin()) + 1)
        slopes = np.gradient(smoothed[:falling], np.log(self.rates[:falling]))
        return self.rates[int(slopes.argmin())]

    def draw(self, file: Path) -> None:
        """Draw the curve and the suggestion as a PNG.

        Raises:
            InputError: the file cannot be written.
        """
        from matplotlib.figure import Figure  # nothing else here needs it

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(self.rates, self.losses, color="lightgray", label="loss of a step")
        axes.plot(self.rates, self.smoothed, label="smoothed")
        axes.axvline(self.suggestion, color="tab:red", linestyle="--", label=f"suggestion: {self.suggestion:.2g}")
        shown = self.losses[: int(self.smoothed.argmin()) + 1]
        axes.set_ylim(0, 1.5 * max(shown))  # a loss that diverges would hide all others
        axes.set(xscale="log", xlabel="SOLVER.BASE_LR", ylabel="total loss", title="Learning rate finder")
        axes.legend()
        replace_file(file, lambda unfinished: figure.savefig(unfinished, format="png", dpi=120))


class LRFinder(Trainer):
    """Trains for a few steps, in each with a higher learning rate, and keeps nothing but the losses.

    All parts of the model keep the ratios of their rates. With a burn-in the steps are supervised ones.

    Attributes:
        curve: what was found.
    """

    def __init__(self, cfg: Any, lowest: float, highest: float, steps: int) -> None:
        """Prepare for a search.

        Args:
            cfg: of the training to find a rate for; nothing of its schedule counts.
            lowest: SOLVER.BASE_LR of the first step.
            highest: SOLVER.BASE_LR of the last step.
            steps: their number, 3 or more; fewer are done if the loss diverges.
        """
        rates = np.geomspace(lowest, highest, steps).tolist()
        self._sweep = _Sweep(rates, cfg.SOLVER.BASE_LR)
        super().__init__(cfg)
        self.max_iter = steps

    def _build_hooks(self) -> list[hooks.HookBase]:
        return [AfterStep(), StopOnSignal(), self._sweep]

    def run_step(self) -> None:
        """Train one step; one that diverges is the end."""
        try:
            super().run_step()
        except FloatingPointError as error:
            raise EarlyEnd from error

    @property
    def curve(self) -> LRCurve:
        """See the class."""
        return LRCurve(self._sweep.rates[: len(self._sweep.losses)], self._sweep.losses)


class _Sweep(HookBase):
    """Sets the learning rate before each step, and keeps its loss."""

    def __init__(self, rates: list[float], base: float) -> None:
        self.rates = rates
        self.losses: list[float] = []
        self._base = base
        self._factors: list[float] = []

    def before_train(self) -> None:
        self._factors = [group["lr"] / self._base for group in self.trainer.optimizer.param_groups]

    def before_step(self) -> None:
        for group, factor in zip(self.trainer.optimizer.param_groups, self._factors, strict=True):
            group["lr"] = self.rates[self.trainer.iter] * factor

    def after_step(self) -> None:
        self.losses.append(self.trainer.storage.latest()["total_loss"][0])
        if LRCurve(self.rates, self.losses).diverged:
            raise EarlyEnd
