"""The trainer: Detectron2's training loop around a framework."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

import torch
from detectron2.engine import SimpleTrainer, create_ddp_model, hooks
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..checkpoint import FrameworkCheckpointer, load_initial_weights
from ..checkpoint.checkpointer import tensor_bytes
from ..checkpoint.classes import get_run_classes
from ..config.layers import IN_EPOCHS, value_of
from ..data import TrainBatch, build_train_loader
from ..data.class_weights import build_class_weights
from ..data.loader import image_cache_in_use
from ..evaluation.evaluator import evaluate
from ..frameworks import Framework, build_framework, ineffective_keys
from ..frameworks.micro_batches import add_to, split_batch
from ..structures import StepRecord
from ..utils.errors import InputError, one_line_message
from ..utils.signals import STOP_SIGNALS, StopRequest
from .early_stopping import EarlyEnd, EarlyStopping
from .hooks import (
    AfterStep,
    BestCheckpointer,
    EvalHook,
    LRScheduler,
    PeriodicCheckpointer,
    Pictures,
    PseudoLabelAverages,
    PseudoLabelsByClass,
    StopOnSignal,
)
from .memory import memory_limit
from .prototype_record import PrototypeRecorder
from .solver import build_optimizer, optimizer_state_bytes
from .writers import PeriodicWriter

logger = logging.getLogger(__name__)


def _needs_traceback(record: logging.LogRecord) -> bool:
    return not (record.exc_info and one_line_message(record.exc_info[1]))


# Detectron2's loop logs the traceback of every error, even if `clear_errors` prints it in one line.
logging.getLogger("detectron2.engine.train_loop").addFilter(_needs_traceback)

_RENAMED_HOOKS = {"Tally": "PseudoLabelAverages"}
"""Former names of hooks in checkpoints."""


class Trainer(SimpleTrainer):
    """Trains a framework, with seeded steps, mixed precision, exact resume, and stops between two steps.

    Attributes:
        framework: trained; `model` is the same, inside DDP with several processes.
        stop_request: records signals for the end of the step.
        stopping: the signal that requested a stop, the same on all ranks, or 0.
        averages: of the pseudo-labels of all steps.
        ended_early: whether SOLVER.EARLY_STOPPING ended the training.
    """

    LOG_PERIOD = 20
    CLASS_ROWS = 100
    """The most rows of figures by class that a training writes: with many classes they are long."""

    def __init__(self, cfg: Any) -> None:
        """Build framework, optimizer, hooks and checkpointer.

        Args:
            cfg: of `setup`.
        """
        self.cfg = cfg
        self.framework = build_training_framework(cfg)
        for text in ineffective_keys(cfg, self.framework):
            logger.warning(text)
        optimizer = build_optimizer(cfg, *self.framework.students)
        # DDP accepts no device ids for a model on the CPU.
        device_ids = None if cfg.MODEL.DEVICE == "cpu" else [comm.get_local_rank()]
        model = create_ddp_model(
            self.framework,
            broadcast_buffers=False,
            device_ids=device_ids,
            find_unused_parameters=self.framework.trains_in_phases,
        )
        # `train` builds the loader, once the first iteration is known.
        super().__init__(model, data_loader=(), optimizer=optimizer)
        self.stopping = 0
        self.ended_early = False
        # For the loader: the framework's partner indices of the steps to come.
        self._partner_indices: deque[list[int]] = deque()
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.averages = PseudoLabelAverages()
        self._amp_dtype = amp_dtype(cfg)
        self._scaler = torch.amp.GradScaler(
            torch.device(cfg.MODEL.DEVICE).type, enabled=self._amp_dtype is torch.float16
        )
        self.checkpointer = FrameworkCheckpointer(self.model, cfg, trainer=self)
        self._early_stopping: list[EarlyStopping] = []
        self.register_hooks(self._build_hooks())
        self.stop_request = StopRequest()
        self.last_results: OrderedDict[str, Any] = OrderedDict()

    def _build_hooks(self) -> list[hooks.HookBase]:
        cfg, solver = self.cfg, self.cfg.SOLVER
        ret: list[hooks.HookBase] = [
            hooks.IterationTimer(),
            LRScheduler(self.optimizer, build_lr_scheduler(cfg, self.optimizer)),
            AfterStep(),
            self.averages,
            # Before each evaluation, which is long and cancelled by a request to stop.
            PeriodicCheckpointer(
                self.checkpointer,
                (solver.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD),
                solver.CHECKPOINTS_TO_KEEP,
                solver.CHECKPOINT_STEPS,
            ),
        ]
        if cfg.TEST.EVAL_PERIOD > 0:
            evaluation = EvalHook(cfg.TEST.EVAL_PERIOD, self.test)
            ret += [
                evaluation,
                BestCheckpointer(cfg.TEST.EVAL_PERIOD, self.checkpointer, self.framework.metric),
            ]
            if patience := solver.EARLY_STOPPING.PATIENCE:
                self._early_stopping.append(EarlyStopping(evaluation, self.framework.metric, patience))
        if cfg.VIS_PERIOD > 0:
            ret.append(Pictures(cfg.VIS_PERIOD, cfg))
        if self.framework.semi_supervised:
            period = max(self.LOG_PERIOD, self.max_iter // self.CLASS_ROWS)
            ret.append(PseudoLabelsByClass(period, get_run_classes(cfg).names))
        if cfg.WEIGHTING.ENABLED and cfg.WEIGHTING.RECORD_PERIOD:
            ret.append(PrototypeRecorder(cfg.WEIGHTING.RECORD_PERIOD, Path(cfg.OUTPUT_DIR)))
        if comm.is_main_process():
            ret.append(PeriodicWriter(cfg, self.framework.metric, self.LOG_PERIOD))
        # The last ones, since they end the loop.
        return [*ret, *self._early_stopping, StopOnSignal()]

    def resume_or_load(self, resume: bool) -> None:
        """Resume the run of the output folder, or start a new one from `MODEL.WEIGHTS`.

        A new run moves the files of an earlier one aside.

        Args:
            resume: whether to resume if there is a checkpoint.
        """
        if resume and self.checkpointer.resume():
            self.start_iter = self.iter + 1
        else:
            load_initial_weights(self.framework.student, self.cfg)
            comm.synchronize()  # all ranks have read the weights, which may be moved aside now
            self.checkpointer.start_new_run()
            comm.synchronize()  # no rank writes into the folder before
            self.framework.reset()

    def train(self) -> OrderedDict[str, Any]:  # type: ignore[override]
        """Train from `start_iter` to `max_iter`.

        Returns:
            the last evaluation's results, empty if there was none; with "left_out" if any evaluation had it.

        Raises:
            InputError: there is no space for a checkpoint, or one cannot be written; earlier ones are intact.
        """
        if self.start_iter < self.max_iter:
            size = tensor_bytes(self.framework.state_dict()) + optimizer_state_bytes(self.optimizer)
            self.checkpointer.check_disk_space(size, self.cfg.SOLVER.CHECKPOINTS_TO_KEEP)
        self.last_results = OrderedDict()
        if any(hook.exhausted for hook in self._early_stopping):  # the run that is resumed has ended
            self.max_iter = self.start_iter
        self._partner_indices.extend(self.framework.partner_indices())
        with image_cache_in_use(self.cfg):
            self.reset_data_loader(lambda: self.build_train_loader(self._partner_indices))
            try:
                with self.stop_request, suppress(EarlyEnd):
                    super().train(self.start_iter, self.max_iter)
            finally:
                # Ends the workers. The end of the process would kill them and leave their temporary folders.
                self.reset_data_loader(tuple)
                self.checkpointer.unlock()
        return self.last_results

    def build_train_loader(self, partner_indices: deque[list[int]]) -> Iterator[TrainBatch]:
        """Build the loader of batches from `start_iter` on; subclasses may build another.

        Args:
            partner_indices: see `build_partner_loader`.
        """
        return build_train_loader(self.cfg, self.start_iter, partner_indices)

    def test(self) -> OrderedDict[str, Any]:
        """Evaluate the framework's model on `cfg.DATASETS.TEST`."""
        results = evaluate(self.cfg, self.framework)
        if "left_out" in self.last_results:  # in an earlier evaluation of this run
            results.setdefault("left_out", {"images": 0})
        self.last_results = results
        return results

    def after_train(self) -> None:
        """Call the hooks; after an early end nothing is left to be done, as metrics.json says."""
        if self.ended_early:
            self.storage.iter = self.iter
            self.storage.put_scalar("eta_seconds", 0.0, smoothing_hint=False)
        super().after_train()

    def end_early(self) -> NoReturn:
        """End the training after the current step, as if it was the last one.

        Raises:
            EarlyEnd: always; it leaves Detectron2's loop.
        """
        self.ended_early, self.max_iter = True, self.iter + 1
        self.checkpointer.save("model_final", iteration=self.iter)
        self.iter += 1  # as the loop leaves it at its end
        raise EarlyEnd

    def run_step(self) -> None:
        """Train one step.

        Raises:
            FloatingPointError: a loss is not finite.
            MemoryLimitError: it does not fit into the memory.
        """
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.framework.iteration = self.iter
        seed_step(self.cfg.SEED, self.iter, comm.get_rank())
        with memory_limit(self.cfg, comm.get_world_size()):
            self.optimizer.zero_grad()
            losses = self._compute_gradients(batch)
            self._reduce_and_check(losses, data_time)
            # Read now, when the device has finished its work and nothing has to wait.
            self._partner_indices.extend(self.framework.partner_indices()[-1:])
            # Before the step: a fused optimizer would unscale after gradients are clipped.
            self._scaler.unscale_(self.optimizer)
            self._scaler.step(self.optimizer)
            self._scaler.update()

    def _compute_gradients(self, batch: TrainBatch) -> dict[str, Tensor]:
        """Compute the gradients of all micro-batches, which add up; `last_step` becomes that of all.

        Returns:
            the losses of the step, without gradients.
        """
        device, dtype = self.framework.device.type, self._amp_dtype
        losses: dict[str, Tensor] = {}
        record: StepRecord | None = None
        count = self.cfg.SOLVER.GRAD_ACCUMULATION
        for number, (items, self.framework.micro_batch) in enumerate(split_batch(batch, count), 1):
            # DDP exchanges the sums of the gradients, in the last backward.
            no_sync = nullcontext if number == count else getattr(self.model, "no_sync", nullcontext)
            with no_sync():
                with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
                    parts = self.model(items)
                self._scaler.scale(torch.stack(list(parts.values())).sum()).backward()
            add_to(losses, {name: part.detach() for name, part in parts.items()})
            record = record.joined(self.framework.last_step) if record else self.framework.last_step
        assert record is not None
        self.framework.last_step = record
        return losses

    def _reduce_and_check(self, losses: dict[str, Tensor], data_time: float) -> None:
        """Exchange losses, divergence and stop requests between ranks, in a step's only all-reduce and host sync.

        Raises:
            FloatingPointError: on all ranks, if a loss is not finite on any.
        """
        scalars = losses | self.framework.last_step.scalars
        values = torch.stack([value.detach().float() for value in scalars.values()])
        finite = values.isfinite()
        requested = [float(self.stop_request.signum == signum) for signum in STOP_SIGNALS]
        extra = values.new_tensor([*requested, data_time])
        packed = torch.cat([values.nan_to_num(0.0, 0.0, 0.0), (~finite).float(), extra])
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(packed)
        numbers = packed.tolist()
        world, count = comm.get_world_size(), len(scalars)
        diverged = [name for name, bad in zip(scalars, numbers[count : 2 * count], strict=True) if bad]
        if diverged:
            raise FloatingPointError(
                f"{', '.join(diverged)} not finite at iteration {self.iter}; nothing was updated. "
                "Lower SOLVER.BASE_LR or clip gradients (SOLVER.CLIP_GRADIENTS.ENABLED True)"
            )
        requested = numbers[2 * count : -1]
        self.stopping = next((int(s) for s, ranks in zip(STOP_SIGNALS, requested, strict=True) if ranks), 0)
        storage = get_event_storage()
        means = {name: value / world for name, value in zip(scalars, numbers, strict=False)}
        storage.put_scalars(total_loss=sum(means[name] for name in losses), data_time=numbers[-1] / world, **means)

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks, optimizer and loss scaling: with the framework's state, all that a resume needs."""
        return super().state_dict() | {"scaler": self._scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state.

        Raises:
            InputError: it is of another optimizer.
        """
        for old, new in _RENAMED_HOOKS.items():
            if old in state_dict.get("hooks", {}):
                state_dict["hooks"][new] = state_dict["hooks"].pop(old)
        groups = (state["param_groups"][0] for state in (self.optimizer.state_dict(), state_dict["optimizer"]))
        if len({"betas" in group for group in groups}) > 1:
            raise InputError("SOLVER.OPTIMIZER: the checkpoint's is another one; set it as it was, or begin anew")
        super().load_state_dict(state_dict)
        if state_dict["scaler"]:  # empty after a run in another precision
            self._scaler.load_state_dict(state_dict["scaler"])


def build_training_framework(cfg: Any) -> Framework:
    """Build the framework of a config for training.

    Raises:
        InputError: see `build_framework` and `build_class_weights`; DATASETS.UNLABELED is empty for a semi-supervised
            framework, or the schedule still counts epochs.
    """
    if counted := [key for key in IN_EPOCHS if value_of(cfg, key)]:
        raise InputError(f"{counted[0]}: is not a number of steps; call resolve_epochs(cfg) first")
    framework = build_framework(cfg)
    if framework.semi_supervised and not cfg.DATASETS.UNLABELED:
        raise InputError(
            f"DATASETS.UNLABELED: empty, but {cfg.FRAMEWORK.NAME} learns from unlabeled images; "
            "name a list of them, or set FRAMEWORK.NAME Supervised"
        )
    if weights := build_class_weights(cfg):
        framework.class_weights = torch.tensor(weights, device=framework.device)
    return framework


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seed torch for a step, independently of the steps before, so that a resumed run gets the same random numbers.

    Args:
        seed: of the run.
        iteration: of the step.
        rank: of the process.
    """
    digest = hashlib.blake2b(f"step {seed} {iteration} {rank}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little"))


def amp_dtype(cfg: Any) -> torch.dtype | None:
    """The dtype of mixed precision by `SOLVER.AMP`; None if disabled."""
    types = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    return types[cfg.SOLVER.AMP.DTYPE] if cfg.SOLVER.AMP.ENABLED else None
