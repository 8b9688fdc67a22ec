"""What a training says of itself: a line on the terminal, metrics.json, TensorBoard, and other loggers (LOGGERS)."""

from __future__ import annotations

import importlib.util
import logging
import re
import threading
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.engine import hooks
from detectron2.utils.events import EventWriter, JSONWriter, TensorboardXWriter, get_event_storage

from ..utils.errors import InputError
from ..utils.files import LineFile, UnwritableError, clear_write_errors, write_text

logger = logging.getLogger(__name__)

_WINDOW = 20
"""Steps over which figures are smoothed."""


class PeriodicWriter(hooks.PeriodicWriter):
    """Detectron2's hook, but it opens its files when the training starts: before, an earlier run's may be there."""

    def __init__(self, cfg: Any, metric: str, period: int) -> None:
        """Write to the terminal, into `cfg.OUTPUT_DIR`, and to `cfg.LOGGERS`, every `period` steps.

        Args:
            cfg: of the training.
            metric: the name of its figure of merit in metrics.json.
            period: in steps.
        """
        super().__init__([], period)
        self._cfg, self._metric = cfg, metric
        self._folder = Path(cfg.OUTPUT_DIR)
        self._excepthook = threading.excepthook

    def before_train(self) -> None:
        """Open the files."""
        self._excepthook, threading.excepthook = threading.excepthook, self._report_exception
        self._writers = [
            ProgressWriter(self._cfg, self._metric, self.trainer),
            MetricsWriter(self._folder / "metrics.json", _WINDOW),
            *(_LOGGERS[name](self._cfg) for name in self._cfg.LOGGERS),
        ]

    def after_step(self) -> None:
        """Write if due."""
        with clear_write_errors(self._folder):
            super().after_step()

    def after_train(self) -> None:
        """Write the rest; if the training ended early, its error is reported rather than one of this."""
        try:
            with clear_write_errors(self._folder):
                super().after_train()
        except UnwritableError as error:
            if self.trainer.iter >= self.trainer.max_iter:
                raise
            logger.warning("%s", error)
        finally:
            threading.excepthook = self._excepthook

    def _report_exception(self, args: threading.ExceptHookArgs) -> None:
        # TensorBoard's thread passes its error to the next write: it need not be printed too.
        if not type(args.thread).__module__.startswith("tensorboard."):
            self._excepthook(args)


class ProgressWriter(EventWriter):
    """One line for whoever waits: step, losses, figure of merit, images a second and time to go.

    Such as `step 240/450  loss 0.71 (sem_seg 0.43, unsup 0.28)  mIoU 61.20  14.2 images/s  1:12 to go`. Losses are
    medians of the last steps.
    """

    def __init__(self, cfg: Any, metric: str, trainer: Any) -> None:
        """Prepare for a training.

        Args:
            cfg: of the training.
            metric: the name of its figure of merit in metrics.json.
            trainer: whose `max_iter` may change.
        """
        self._metric, self._trainer = metric, trainer
        solver = cfg.SOLVER
        self._images = solver.IMS_PER_BATCH + solver.UNLABELED_IMS_PER_BATCH * bool(cfg.DATASETS.UNLABELED)
        self._written = -1

    def write(self) -> None:
        """Log the line, if there was a step since the last one."""
        storage, last = get_event_storage(), self._trainer.max_iter
        if storage.iter in (self._written, last):
            return
        self._written = storage.iter
        histories = storage.histories()
        losses = {
            name.removeprefix("loss_"): history.median(storage.count_samples(name, _WINDOW))
            for name, history in histories.items()
            if "loss" in name
        }
        parts = [f"step {storage.iter + 1}/{last}"]
        if "total_loss" in losses:
            terms = ", ".join(f"{name} {value:.3g}" for name, value in losses.items() if name != "total_loss")
            parts.append(f"loss {losses['total_loss']:.3g} ({terms})")
        if measured := storage.latest().get(self._metric):
            parts.append(f"{self._metric.rpartition('/')[2]} {measured[0]:.2f}")
        if "time" in histories:  # not in the first steps, which take longer
            seconds = histories["time"].median(1000)
            left = seconds * (last - storage.iter - 1)
            storage.put_scalar("eta_seconds", left, smoothing_hint=False)
            parts += [f"{self._images / seconds:.3g} images/s", f"{timedelta(seconds=round(left))} to go"]
        if torch.cuda.is_available():
            parts.append(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
        logger.info("%s", "  ".join(parts))


class MetricsWriter(JSONWriter):
    """Detectron2's writer with a file of complete lines only."""

    def __init__(self, path: Path, window_size: int = _WINDOW) -> None:
        """Append to `path`; the arguments are Detectron2's."""
        self._file_handle = LineFile(path)
        self._window_size = window_size
        self._last_write = -1


class TrackingWriter(EventWriter):
    """Writes scalars to an experiment tracker. A resumed run goes on in the tracker's run, whose id is in its folder.

    Attributes:
        name: of the tracker, in LOGGERS, and of its Python package.
    """

    name: str

    def __init__(self, cfg: Any) -> None:
        """Begin, or go on with, a run that is named as OUTPUT_DIR."""
        self._last_write = -1
        folder = Path(cfg.OUTPUT_DIR)
        file = folder / f"{self.name}_run"
        run = self.start(folder, file.read_text() if file.is_file() else None, cfg.dump())
        write_text(file, run)

    def start(self, folder: Path, run: str | None, config: str) -> str:
        """Start or go on.

        Args:
            folder: of the training.
            run: the id of the run to go on with; None begins one.
            config: the training's, in YAML.

        Returns:
            the run's id.
        """
        raise NotImplementedError

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write the scalars of one step."""
        raise NotImplementedError

    def write(self) -> None:
        """Write what is new since the last call."""
        new: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, step) in get_event_storage().latest_with_smoothing_hint(_WINDOW).items():
            if step > self._last_write:
                new[step][name] = value
        for step in sorted(new):
            self.log(new[step], step)
            self._last_write = step


class MLflowWriter(TrackingWriter):
    """Writes to MLflow, wherever MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say."""

    name = "mlflow"

    def start(self, folder: Path, run: str | None, config: str) -> str:
        """See `TrackingWriter`."""
        import mlflow

        self._mlflow = mlflow
        found: str = mlflow.start_run(run_id=run, run_name=None if run else folder.name).info.run_id
        mlflow.log_text(config, "config.yaml")
        return found

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `TrackingWriter`; characters that MLflow does not take in names become `_`."""
        self._mlflow.log_metrics({re.sub(r"[^\w. /-]", "_", name): value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


class WandbWriter(TrackingWriter):
    """Writes to Weights & Biases, whose WANDB_* variables say where; with WANDB_MODE offline into OUTPUT_DIR alone."""

    name = "wandb"

    def start(self, folder: Path, run: str | None, config: str) -> str:
        """See `TrackingWriter`."""
        import wandb

        values = yaml.safe_load(config)
        self._run = wandb.init(dir=folder, id=run, name=folder.name, config=values, resume="allow")
        found: str = self._run.id
        return found

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `TrackingWriter`."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


_LOGGERS = {
    "tensorboard": lambda cfg: TensorboardXWriter(cfg.OUTPUT_DIR),
    "mlflow": MLflowWriter,
    "wandb": WandbWriter,
}


def check_loggers(cfg: Any) -> None:
    """Check that the packages of LOGGERS are there.

    Raises:
        InputError: one is not installed.
    """
    for name in cfg.LOGGERS:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"LOGGERS: {name} is not installed; `pip install 'wpl_d2[{name}]'`, or leave it out")
