"""Plans: trainings that need others before them, each in a folder of its own, all in one run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from ..checkpoint.checkpointer import checkpoints_of
from ..checkpoint.run_folder import PHASES, lock_folder, move_aside
from ..utils.files import write_text
from .setup import open_log, save_run_info
from .trainer import Trainer

logger = logging.getLogger(__name__)

_FINISHED = "finished"


class Phase(NamedTuple):
    """A training before the last one of a plan.

    Attributes:
        cfg: of the training; its OUTPUT_DIR is a folder of its own, see `phase_folder`.
        finish: makes what later trainings need of this one, in all processes; after a stop it is called again.
    """

    cfg: CfgNode
    finish: Callable[[], None]


class Plan(NamedTuple):
    """Trainings in their order.

    Attributes:
        earlier: all but the last one; most trainings need none.
        last: config of the training that leaves the result, in the OUTPUT_DIR of the run.
    """

    earlier: Sequence[Phase]
    last: CfgNode


def phase_folder(cfg: CfgNode, name: str) -> str:
    """The OUTPUT_DIR of an earlier training of the plan that `cfg` is the run of."""
    return str(Path(cfg.OUTPUT_DIR, PHASES, name))


def train_earlier_phases(plan: Plan, resume: bool) -> None:
    """Do all trainings of a plan but the last one, for which the generators are then seeded anew.

    Args:
        plan: each of its trainings goes on from its newest checkpoint, and those that are finished are left out.
        resume: whether to go on with an earlier run of the plan; if not, it is moved aside first.

    Raises:
        InputError: see `Trainer`.
        SystemExit: a signal asked for a stop.
    """
    folder = Path(plan.last.OUTPUT_DIR)
    # A checkpoint of the last one says that all others are finished, even if they were removed.
    if not plan.earlier or (resume and any(checkpoints_of(folder))):
        return
    if comm.is_main_process():
        lock_folder(folder)
        aside = None if resume else move_aside(folder, phases=True)
        if aside:
            logger.warning("%s: had an earlier run, which is in %s now", folder, aside)
    comm.synchronize()
    save_run_info(plan.last)
    for number, phase in enumerate(plan.earlier, 1):
        marker = Path(phase.cfg.OUTPUT_DIR, _FINISHED)
        if not marker.is_file():
            logger.info("Training %d of %d, in %s", number, len(plan.earlier) + 1, phase.cfg.OUTPUT_DIR)
            _train(phase.cfg)
            phase.finish()
            comm.synchronize()
            if comm.is_main_process():
                write_text(marker, "")
    _seed(plan.last)
    open_log(folder)


def _train(cfg: Any) -> None:
    _seed(cfg)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    save_run_info(cfg)
    logger.info("Training from iteration %d to %d", trainer.start_iter, trainer.max_iter)
    trainer.train()


def _seed(cfg: Any) -> None:
    """Seed the generators as at the start of a run, so that no training depends on those before it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # of the training before
    seed_all_rng(cfg.SEED + comm.get_rank())
