"""The trainer's hooks: state, schedule, checkpoints, evaluation, pictures, figures of pseudo-labels."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.engine import hooks
from detectron2.engine.train_loop import HookBase
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..checkpoint import FrameworkCheckpointer, load_checkpoint
from ..checkpoint.checkpointer import STEP_FILE
from ..data.pixel_values import PixelLayout
from ..frameworks import Framework, ineffective_parts
from ..structures import IGNORE, PseudoLabels, StepRecord
from ..utils.errors import InputError
from ..utils.signals import exit_status
from ..visualization import heatmap, optional_picture, overlay, render
from ..weighting.sampling import class_sums

logger = logging.getLogger(__name__)


class AfterStep(HookBase):
    """Updates the framework's state after each step: memory bank, teacher and others."""

    def after_step(self) -> None:
        """Call the framework's `after_step`."""
        self.trainer.framework.after_step()


class LRScheduler(hooks.LRScheduler):
    """Detectron2's hook, but a resumed run follows its config's schedule instead of the saved one."""

    def before_train(self) -> None:
        """Replace the learning rates of the checkpoint's optimizer by the schedule's."""
        super().before_train()
        for group, rate in zip(self.scheduler.optimizer.param_groups, self.scheduler.get_lr(), strict=True):
            group["lr"] = rate

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load only the position in the schedule."""
        position = ("last_epoch", "_step_count")
        super().load_state_dict({key: state_dict[key] for key in position if key in state_dict})


class PeriodicCheckpointer(HookBase):
    """Saves `model_{iteration:07d}` periodically and before a requested stop, and `model_final` at the end.

    The newest `keep` of the former are kept, counting those from before a resume.
    """

    def __init__(
        self, checkpointer: FrameworkCheckpointer, periods: Iterable[int], keep: int, steps: Collection[int] = ()
    ) -> None:
        """Save at the multiples of all `periods`, of which 0 means never.

        Args:
            checkpointer: saves.
            periods: see above.
            keep: at least 1.
            steps: further numbers of steps after which to save, for good.
        """
        self._checkpointer = checkpointer
        self._periods = [period for period in periods if period > 0]
        self._keep = keep
        self._steps = steps

    def after_step(self) -> None:
        """Save if due."""
        iteration = self.trainer.iter
        if iteration + 1 == self.trainer.max_iter:
            self._checkpointer.save("model_final", iteration=iteration)
        elif self.trainer.stopping or self._is_due(iteration + 1):
            self._checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
            self._prune(iteration)

    def _is_due(self, steps: int) -> bool:
        return steps in self._steps or any(steps % period == 0 for period in self._periods)

    def _prune(self, iteration: int) -> None:
        if not comm.is_main_process():
            return
        files = Path(self._checkpointer.save_dir).glob("model_*.pth")
        steps = {int(found[1]): path for path in files if (found := STEP_FILE.fullmatch(path.name))}
        passing = sorted(step for step in steps if step <= iteration and step + 1 not in self._steps)
        for step in passing[: -self._keep]:
            self._checkpointer.remove(steps[step])


class EvalHook(hooks.EvalHook):
    """Detectron2's hook, but a request to stop ends an evaluation at once, since the step before it is saved."""

    def is_due(self, steps: int) -> bool:
        """Whether an evaluation follows after so many steps."""
        return bool(self._period > 0 and steps % self._period == 0)

    def evaluate(self) -> None:
        """Evaluate now."""
        self._do_eval()

    def _do_eval(self) -> None:
        if self.trainer.stopping:
            return
        with self.trainer.stop_request.suspended():
            super()._do_eval()

    def after_train(self) -> None:
        """Evaluate the final model, if the training is complete and has not done so."""
        if self.trainer.iter >= self.trainer.max_iter and not self.trainer.ended_early:
            super().after_train()


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's hook, but a resumed run reads the best value from the best checkpoint itself.

    The checkpoint to resume from was saved before the evaluation, and may not know the best value: a worse model could
    replace the best one.
    """

    NAME = "model_best"

    @property
    def _path(self) -> Path:
        return Path(self._checkpointer.save_dir) / f"{self.NAME}.pth"

    def _best_checking(self) -> None:
        metric = self.trainer.storage.latest().get(self._val_metric)
        if metric is None:
            logger.warning("%s was not measured; %s stays as it is", self._val_metric, self.NAME)
        elif (self.best_metric is None or self._compare(metric[0], self.best_metric)) and self._update_best(*metric):
            self._checkpointer.save(self.NAME, resumable=False, iteration=metric[1])

    def after_train(self) -> None:
        """Check the last model too, and log which one was the best."""
        if self.trainer.iter < self.trainer.max_iter:
            return
        super().after_train()
        if self.best_metric is not None:
            logger.info("Best %s: %.2f, at iteration %d", self._val_metric, self.best_metric, self.best_iter)

    def state_dict(self) -> dict[str, Any]:
        """The best value and its step."""
        best = None if self.best_metric is None else float(self.best_metric)
        return {"best_metric": best, "best_iter": self.best_iter}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load them, from the best model's file if there is one."""
        if self._path.is_file():
            try:
                state_dict = load_checkpoint(str(self._path))["trainer"]["hooks"][type(self).__qualname__]
            except (InputError, KeyError, TypeError) as error:
                # The best model is lost, whatever the state says.
                reason = error if isinstance(error, InputError) else f"{self._path}: is not a best model of a training"
                logger.warning("%s; the next evaluation writes it anew", reason)
                state_dict = {"best_metric": None, "best_iter": None}
        self.best_metric = state_dict["best_metric"]
        self.best_iter = state_dict["best_iter"]


class StopOnSignal(HookBase):
    """Exits after the step in which a signal came, once the checkpoint is written: it must be the last hook."""

    def after_step(self) -> None:
        """Exit with the status that shells report for a process ended by that signal."""
        if self.trainer.stopping:
            logger.info(
                "Stopped by signal %d after iteration %d; --resume goes on",
                self.trainer.stopping,
                self.trainer.iter,
            )
            raise SystemExit(exit_status(self.trainer.stopping))

    def after_train(self) -> None:
        """Wait for the other ranks: the launcher ends all once one has exited, and the main one may still write."""
        if self.trainer.stopping:
            comm.synchronize()


class Pictures(HookBase):
    """Pictures of a step's first images, every `period` steps.

    Of a labeled one: the student's prediction, and the truth; of an unlabeled one: all pseudo-labels, those that train,
    and their weights.
    """

    def __init__(self, period: int, cfg: Any) -> None:
        self._period = period
        self._colors = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).stuff_colors
        self._layout = PixelLayout.from_config(cfg)

    def after_step(self) -> None:
        """Put the pictures of the step's first images into the event storage."""
        if (self.trainer.iter + 1) % self._period or not comm.is_main_process():
            return
        with optional_picture(f"TensorBoard's pictures of step {self.trainer.iter}"):
            self._put(self.trainer.framework.last_step)

    def _put(self, step: StepRecord) -> None:
        pictures: dict[str, Any] = {}
        if step.labeled is not None:
            pictures |= self._labeled(*step.labeled)
        if step.pseudo_labels is not None:
            pictures |= self._unlabeled(step.weak_views[0].cpu(), step.pseudo_labels)
        for name, picture in pictures.items():
            get_event_storage().put_image(name, picture)

    def _labeled(self, image: Tensor, truth: Tensor, logits: Tensor) -> dict[str, Any]:
        picture = render(image, self._layout)
        return {
            "labeled/prediction": overlay(picture, logits.argmax(dim=0).cpu(), self._colors),
            "labeled/truth": overlay(picture, truth, self._colors),
        }

    def _unlabeled(self, weak: Tensor, pseudo: PseudoLabels) -> dict[str, Any]:
        pseudo, picture = pseudo.map(lambda field: field[0].cpu()), render(weak, self._layout)
        trained = pseudo.labels.masked_fill(pseudo.confidence < float(self.trainer.framework.threshold), IGNORE)
        weight = pseudo.weight * (trained != IGNORE)
        weigher = self.trainer.framework.weigher
        return {
            "unlabeled/prediction": overlay(picture, pseudo.labels, self._colors),
            "unlabeled/pseudo_label": overlay(picture, trained, self._colors),
            "unlabeled/weight": heatmap(weight, 1.0 if weigher is None else weigher.max_weight),
        }


class PseudoLabelAverages(HookBase):
    """Sums the scalars of the framework's `last_step` over the steps of a run, those before a resume included.

    The trainer has read them already: nothing waits for the device.
    """

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._steps = 0

    def after_step(self) -> None:
        """Add the step, if it made pseudo-labels."""
        if scalars := self.trainer.framework.last_step.scalars:
            known = get_event_storage().latest()
            self._sums.update({name: known[name][0] for name in scalars})
            self._steps += 1

    def after_train(self) -> None:
        """Log them, if the training is complete."""
        if self.trainer.iter >= self.trainer.max_iter:
            self.log(self.trainer.framework)

    def log(self, framework: Framework) -> None:
        """Log the averages, and a warning for each part of the method that had no effect."""
        if self._steps:
            selected, weighted, reliable = (
                self._sums[f"pseudo/{name}"] / self._steps for name in ("selected", "weighted", "reliable")
            )
            logger.info(
                "Pseudo-labels of %d steps: %.2f %% were selected to train, %.2f %% had a weight that is not neutral, "
                "%.2f %% were reliable",
                *(self._steps, 100 * selected, 100 * weighted, 100 * reliable),
            )
        for text in ineffective_parts(framework, self._sums):
            logger.warning(text)

    def state_dict(self) -> dict[str, Any]:
        """The sums and the number of steps."""
        return {"sums": dict(self._sums), "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load them."""
        self._sums, self._steps = Counter(state_dict["sums"]), state_dict["steps"]


class PseudoLabelsByClass(HookBase):
    """Puts what became of each class's pseudo-labels into the metrics, every `period` steps and at the end.

    `pseudo/share-CLASS` of the valid pixels is labeled as the class; of these, `pseudo/selected-CLASS` reaches the
    threshold, and `pseudo/weight-CLASS` is the mean weight. Both are left out while no pixel is labeled so. They are of
    all steps since the last time, and of the main process's images, so that no process waits for another.
    """

    def __init__(self, period: int, classes: Sequence[str]) -> None:
        """Count for `classes`, by id."""
        self._period = period
        self._classes = classes
        self._sums = torch.zeros(3, len(classes), dtype=torch.float64)

    def after_step(self) -> None:
        """Count on the device, and read it if due."""
        pseudo = self.trainer.framework.last_step.pseudo_labels
        if pseudo is not None:
            values = [pseudo.confidence >= self.trainer.framework.threshold, pseudo.weight]
            sums = class_sums(values, pseudo.labels, len(self._classes))
            self._sums = self._sums.to(sums.device).add_(sums)
        if (self.trainer.iter + 1) % self._period == 0 or self.trainer.iter + 1 == self.trainer.max_iter:
            self._put()

    def _put(self) -> None:
        sums = self._sums.tolist()
        self._sums.zero_()
        if not (total := sum(sums[0])):
            return
        means: dict[str, float] = {}
        for name, pixels, selected, weight in zip(self._classes, *sums, strict=True):
            means[f"pseudo/share-{name}"] = pixels / total
            if pixels:
                means |= {f"pseudo/selected-{name}": selected / pixels, f"pseudo/weight-{name}": weight / pixels}
        get_event_storage().put_scalars(smoothing_hint=False, **means)

    def state_dict(self) -> dict[str, Any]:
        """The sums since the last time."""
        return {"sums": self._sums.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load them."""
        self._sums = torch.tensor(state_dict["sums"], dtype=torch.float64)
