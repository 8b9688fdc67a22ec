"""The early end of a training whose evaluations improve no more (SOLVER.EARLY_STOPPING)."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.engine.train_loop import HookBase
from detectron2.utils import comm

from .hooks import EvalHook

logger = logging.getLogger(__name__)


class EarlyEnd(BaseException):
    """Ends Detectron2's loop after a step. It is no error, which the loop would report."""


class EarlyStopping(HookBase):
    """Ends the training after `patience` evaluations in a row without a better value of a metric.

    A stopped run makes up at its resume for an evaluation that the stop has cancelled, so that it ends at the same step
    as one that was not stopped.

    Attributes:
        exhausted: whether the training is at its end.
    """

    def __init__(self, evaluation: EvalHook, metric: str, patience: int) -> None:
        """Watch the evaluations of another hook, which must be registered before this one.

        Args:
            evaluation: evaluates.
            metric: its name in metrics.json; higher is better.
            patience: evaluations without improvement after which the training ends.
        """
        self._evaluation = evaluation
        self._metric = metric
        self._patience = patience
        self._best: float | None = None
        self._waited = 0
        self._steps = 0  # at the last evaluation

    @property
    def exhausted(self) -> bool:
        """See the class."""
        return self._waited >= self._patience

    def before_train(self) -> None:
        """Evaluate, if the run was stopped before it could."""
        start = self.trainer.start_iter
        if self._evaluation.is_due(start) and self._steps < start < self.trainer.max_iter:
            self._evaluation.evaluate()
            self._count(start)
            if self.exhausted:
                self.trainer.iter -= 1  # the loop has not begun
                self.trainer.end_early()

    def after_step(self) -> None:
        """Count an evaluation of this step, and end the training if it was the last one."""
        steps = self.trainer.iter + 1
        if self._evaluation.is_due(steps) and steps < self.trainer.max_iter and not self.trainer.stopping:
            self._count(steps)
            if self.exhausted:
                self.trainer.end_early()

    def _count(self, steps: int) -> None:
        """Compare the metric, which the main process alone has, with the best one so far. A collective call."""
        found = self.trainer.storage.latest().get(self._metric)
        value = comm.all_gather(None if found is None else float(found[0]))[0]
        self._steps = steps
        if value is not None and (self._best is None or value > self._best):
            self._best, self._waited = value, 0
            return
        self._waited += 1
        logger.info(
            "%s has not improved in %d of %d evaluations (SOLVER.EARLY_STOPPING.PATIENCE)",
            *(self._metric, self._waited, self._patience),
        )

    def state_dict(self) -> dict[str, Any]:
        """The best value, the evaluations since, and the steps before the last one."""
        return {"best": self._best, "waited": self._waited, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load them."""
        self._best, self._waited, self._steps = (state_dict[key] for key in ("best", "waited", "steps"))
