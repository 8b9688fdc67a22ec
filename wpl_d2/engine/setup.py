"""From command line arguments to a complete config and an open log."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng

from ..config import get_cfg, load_cfg
from ..config_check import warn_unused
from ..data import setup_datasets
from ..errors import InputError
from ..files import write_text
from .log import begin_log, open_log
from .output import check_folder, has_run
from .scaling import scale_schedule


def setup(args: argparse.Namespace) -> Any:
    """The frozen config of a run, with its data registered and its log begun, in each of its processes.

    Args:
        args: of Detectron2's `default_argument_parser`; `check_run` has found nothing wrong with them.

    Raises:
        InputError: see `read_cfg`.
    """
    cfg, scaled = read_cfg(args)
    if cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed() % 2**31
    cfg.freeze()
    _begin_log(cfg, args.eval_only)
    warn_unused(cfg, get_cfg())
    if scaled:
        logging.getLogger(__name__).info(
            "schedule scaled to a batch of %d images: SOLVER.BASE_LR %g, SOLVER.MAX_ITER %d",
            *(cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER),
        )
    # For the first weights; every later draw is a function of the seed and a counter.
    seed_all_rng(cfg.SEED + comm.get_rank())
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK and not args.eval_only
    return cfg


def read_cfg(args: argparse.Namespace) -> tuple[Any, bool]:
    """The config of a run: file and overrides read, the schedule scaled to the batch, data registered.

    Args:
        args: of Detectron2's `default_argument_parser`.

    Returns:
        the config, not frozen, and whether `scale_schedule` changed it.

    Raises:
        InputError: on anything wrong in the config or in the data set's description.
    """
    if not args.config_file and not args.opts:
        raise InputError("--config-file: is missing; give one, such as configs/quickstart.yaml")
    cfg = load_cfg(args.config_file, args.opts)
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    scaled = scale_schedule(cfg, given=args.opts[::2])
    setup_datasets(cfg)
    return cfg, scaled


def _begin_log(cfg: Any, eval_only: bool) -> None:
    output = Path(cfg.OUTPUT_DIR)
    begin_log()
    if eval_only:
        open_log(output)
    else:
        if comm.is_main_process():
            check_folder(output)
        if not has_run(output):
            record_run(cfg)
    logging.getLogger("detectron2.engine.train_loop").addFilter(_without_traceback)
    logging.getLogger(__name__).info(
        "%s\n  device: %s, processes: %d, config and environment: %s",
        shlex.join(sys.argv),
        cfg.MODEL.DEVICE,
        comm.get_world_size(),
        output,
    )


def record_run(cfg: Any) -> None:
    """Write down what a training is: config, environment, and the log from `setup` on.

    As Detectron2's `default_setup`, but config and environment go to files instead of through the terminal. `setup`
    does it in a folder without an earlier run; otherwise it has to wait for `Trainer.resume_or_load`, since of a start
    that fails nothing may stand beside that run's checkpoints.

    Args:
        cfg: of `setup`.

    Raises:
        InputError: the folder cannot be written.
    """
    output = Path(cfg.OUTPUT_DIR)
    if comm.is_main_process():
        write_text(output / "config.yaml", cfg.dump())
        write_text(output / "environment.txt", collect_env_info())
    open_log(output)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Make one line of Detectron2's record of an `InputError`, whose place in the code is of no interest."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, InputError):
        record.msg, record.args, record.exc_info = "Stopped: %s", (error,), None
    return True
