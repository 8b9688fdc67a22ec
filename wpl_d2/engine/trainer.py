"""The trainer: Detectron2's loop around a framework."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import SimpleTrainer, create_ddp_model, hooks
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..checkpoint import FrameworkCheckpointer, load_initial_weights
from ..checkpoint.checkpointer import tensor_bytes
from ..config.layers import IN_EPOCHS, value_of
from ..data import TrainBatch, build_train_loader
from ..evaluation.evaluator import evaluate
from ..frameworks import Framework, build_framework, ineffective_keys
from ..utils.errors import InputError, one_line_message
from ..utils.signals import STOP_SIGNALS, StopRequest
from .hooks import (
    AfterStep,
    BestCheckpointer,
    EvalHook,
    LRScheduler,
    PeriodicCheckpointer,
    PeriodicWriter,
    Pictures,
    PseudoLabelAverages,
    StopOnSignal,
)
from .solver import build_optimizer, optimizer_state_bytes

logger = logging.getLogger(__name__)


def _needs_traceback(record: logging.LogRecord) -> bool:
    return not (record.exc_info and one_line_message(record.exc_info[1]))


# Detectron2's loop logs every error with its traceback, also one that `clear_errors` will say in one line.
logging.getLogger("detectron2.engine.train_loop").addFilter(_needs_traceback)

_RENAMED_HOOKS = {"Tally": "PseudoLabelAverages"}
"""Old names of hooks in checkpoints, and today's."""


class Trainer(SimpleTrainer):
    """Trains a framework: counted randomness, mixed precision, exact resume, a stop between two steps.

    Attributes:
        framework: what is trained; `model` is the same, inside DDP when there are several processes.
        stop_request: what signals come to between two steps.
        stopping: the signal that asked for an end, on every rank, or 0.
        averages: what the pseudo-labels of all steps came to.
    """

    LOG_PERIOD = 20

    def __init__(self, cfg: Any) -> None:
        """Build everything that `cfg` stands for.

        Args:
            cfg: a config that `setup` completed.
        """
        self.cfg = cfg
        self.framework = build_training_framework(cfg)
        for text in ineffective_keys(cfg, self.framework):
            logger.warning(text)
        optimizer = build_optimizer(cfg, self.framework.student)
        # DDP wants no device ids for a model on the CPU.
        device_ids = None if cfg.MODEL.DEVICE == "cpu" else [comm.get_local_rank()]
        model = create_ddp_model(self.framework, broadcast_buffers=False, device_ids=device_ids)
        # The loader comes in `train`, when it is known where to start.
        super().__init__(model, data_loader=(), optimizer=optimizer)
        self.stopping = 0
        # For the loader: the framework's partner indices of the steps to come.
        self._partner_indices: deque[list[int]] = deque()
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.averages = PseudoLabelAverages()
        self._amp_dtype = amp_dtype(cfg)
        self._scaler = torch.amp.GradScaler(
            torch.device(cfg.MODEL.DEVICE).type, enabled=self._amp_dtype is torch.float16
        )
        self.checkpointer = FrameworkCheckpointer(self.model, cfg, trainer=self)
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
            # Before an evaluation too, which may be long and ends at once when it is asked to.
            PeriodicCheckpointer(
                self.checkpointer, (solver.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD), solver.CHECKPOINTS_TO_KEEP
            ),
        ]
        if cfg.TEST.EVAL_PERIOD > 0:
            ret += [
                EvalHook(cfg.TEST.EVAL_PERIOD, self.test),
                BestCheckpointer(cfg.TEST.EVAL_PERIOD, self.checkpointer, self.framework.metric),
            ]
        if cfg.VIS_PERIOD > 0:
            ret.append(Pictures(cfg.VIS_PERIOD, cfg))
        if comm.is_main_process():
            ret.append(PeriodicWriter(Path(cfg.OUTPUT_DIR), self.max_iter, self.LOG_PERIOD))
        return [*ret, StopOnSignal()]

    def resume_or_load(self, resume: bool) -> None:
        """Continue the run of the output folder if asked to and if there is one, else begin with `MODEL.WEIGHTS`.

        A run that begins puts aside what an earlier one left.

        Args:
            resume: whether to look for a checkpoint.
        """
        if resume and self.checkpointer.resume():
            self.start_iter = self.iter + 1
        else:
            load_initial_weights(self.framework.student, self.cfg)
            comm.synchronize()  # all have read them, if they are what is put aside now
            self.checkpointer.start_new_run()
            comm.synchronize()  # none writes into the folder before
            self.framework.reset()

    def train(self) -> OrderedDict[str, Any]:  # type: ignore[override]
        """Train from `start_iter` to `max_iter`.

        Returns:
            the last evaluation's results, empty where there was none; with "left_out" if any evaluation had that.

        Raises:
            InputError: there is no room for a checkpoint, or the disk refuses one; those before are whole.
        """
        if self.start_iter < self.max_iter:
            size = tensor_bytes(self.framework.state_dict()) + optimizer_state_bytes(self.optimizer)
            self.checkpointer.check_disk_space(size, self.cfg.SOLVER.CHECKPOINTS_TO_KEEP)
        self.last_results = OrderedDict()
        self._partner_indices.extend(self.framework.partner_indices())
        self.reset_data_loader(lambda: self.build_train_loader(self._partner_indices))
        try:
            with self.stop_request:
                super().train(self.start_iter, self.max_iter)
        finally:
            # Ends the workers, which the end of the process would kill, so that their temporary folders stayed.
            self.reset_data_loader(tuple)
            self.checkpointer.release()
        self.averages.report(self.framework)
        return self.last_results

    def build_train_loader(self, partner_indices: deque[list[int]]) -> Iterator[TrainBatch]:
        """The batches from `start_iter` on; a subclass can feed others.

        Args:
            partner_indices: see `build_partner_loader`.
        """
        return build_train_loader(self.cfg, self.start_iter, partner_indices)

    def test(self) -> OrderedDict[str, Any]:
        """Evaluate the framework's model on `cfg.DATASETS.TEST`."""
        results = evaluate(self.cfg, self.framework)
        if "left_out" in self.last_results:  # of an earlier evaluation: it still is of this run
            results.setdefault("left_out", {"images": 0})
        self.last_results = results
        return results

    def run_step(self) -> None:
        """Fetch, forward, backward, check, step; see the class."""
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.framework.iteration = self.iter
        seed_step(self.cfg.SEED, self.iter, comm.get_rank())
        with torch.autocast(
            self.framework.device.type, self._amp_dtype or torch.bfloat16, enabled=self._amp_dtype is not None
        ):
            losses = self.model(batch)
        self.optimizer.zero_grad()
        self._scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        self._agree(losses, data_time)
        # Read now, when the device has nothing left to do that it would have to finish first.
        self._partner_indices.extend(self.framework.partner_indices()[-1:])
        self._scaler.step(self.optimizer)
        self._scaler.update()

    def _agree(self, losses: dict[str, Tensor], data_time: float) -> None:
        """The one exchange and the one host sync of a step: mean losses, who diverged, who was asked to stop.

        Raises:
            FloatingPointError: on all ranks, if a loss is not finite on any.
        """
        scalars = losses | self.framework.last_step.scalars
        values = torch.stack([value.detach().float() for value in scalars.values()])
        finite = values.isfinite()
        asked = [float(self.stop_request.signum == signum) for signum in STOP_SIGNALS]
        extra = values.new_tensor([*asked, data_time])
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
        asked = numbers[2 * count : -1]
        self.stopping = next((int(s) for s, ranks in zip(STOP_SIGNALS, asked, strict=True) if ranks), 0)
        storage = get_event_storage()
        means = {name: value / world for name, value in zip(scalars, numbers, strict=False)}
        storage.put_scalars(total_loss=sum(means[name] for name in losses), data_time=numbers[-1] / world, **means)

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks, optimizer and loss scaling: with the framework, all that a resumed run needs."""
        return super().state_dict() | {"scaler": self._scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back.

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
    """The framework of a config, to be trained.

    Raises:
        InputError: see `build_framework`; it has no images to learn from, or counts epochs that are not steps yet.
    """
    if counted := [key for key in IN_EPOCHS if value_of(cfg, key)]:
        raise InputError(f"{counted[0]}: is no number of steps; call resolve_epochs(cfg) first")
    framework = build_framework(cfg)
    if framework.semi_supervised and not cfg.DATASETS.UNLABELED:
        raise InputError(
            f"DATASETS.UNLABELED: empty, but {cfg.FRAMEWORK.NAME} learns from unlabeled images; "
            "name a list of them, or set FRAMEWORK.NAME Supervised"
        )
    return framework


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seed torch for one step as a function of what counts it, so that a resumed run draws what the other would have.

    Args:
        seed: of the run.
        iteration: of the step.
        rank: of the process.
    """
    digest = hashlib.blake2b(f"step {seed} {iteration} {rank}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little"))


def amp_dtype(cfg: Any) -> torch.dtype | None:
    """The type of mixed precision that `SOLVER.AMP` asks for, None where it is off."""
    types = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    return types[cfg.SOLVER.AMP.DTYPE] if cfg.SOLVER.AMP.ENABLED else None
