"""What a run's pseudo-labels came to, over all of its steps."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from detectron2.engine.train_loop import HookBase
from detectron2.utils.events import get_event_storage

from ..frameworks import Framework, idle_parts

logger = logging.getLogger(__name__)


class Tally(HookBase):
    """Adds up the scalars of the framework's `latest` over the steps of a run, those before it was resumed included.

    The trainer has read them already: nothing waits for the device.
    """

    def __init__(self) -> None:
        """Nothing was counted yet."""
        self._sums: Counter[str] = Counter()
        self._steps = 0

    def after_step(self) -> None:
        """Count the step, if pseudo-labels were made in it."""
        if scalars := self.trainer.framework.latest.get("scalars"):
            known = get_event_storage().latest()
            self._sums.update({name: known[name][0] for name in scalars})
            self._steps += 1

    def report(self, framework: Framework) -> None:
        """Log what the pseudo-labels came to, and a warning for each part of the method that did nothing."""
        if self._steps:
            selected, weighted, reliable = (
                self._sums[f"pseudo/{name}"] / self._steps for name in ("selected", "weighted", "reliable")
            )
            logger.info(
                "Pseudo-labels of %d steps: %.2f %% were selected to train, %.2f %% had a weight that is not neutral, "
                "%.2f %% were reliable",
                *(self._steps, 100 * selected, 100 * weighted, 100 * reliable),
            )
        for text in idle_parts(framework, self._sums):
            logger.warning(text)

    def state_dict(self) -> dict[str, Any]:
        """The sums, and how many steps they are of."""
        return {"sums": dict(self._sums), "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self._sums, self._steps = Counter(state_dict["sums"]), state_dict["steps"]
