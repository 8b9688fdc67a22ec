"""The start of a run: its config, its folder, its log."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from ..checkpoint.run_folder import check_folder, has_run
from ..config import get_cfg, load_cfg
from ..config.validation import warn_unused
from ..data import setup_datasets
from ..utils.errors import InputError
from ..utils.files import write_text, writing
from .solver import resolve_epochs, scale_schedule


def setup(args: argparse.Namespace) -> Any:
    """The frozen config of a run, with its data registered and its log begun, in each of its processes.

    Args:
        args: of Detectron2's `default_argument_parser`; `check_run` has found nothing wrong with them.

    Raises:
        InputError: see `read_cfg`.
    """
    cfg, notes = read_cfg(args)
    if cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed() % 2**31
    cfg.freeze()
    _begin_log(cfg, args.eval_only)
    warn_unused(cfg, get_cfg())
    for note in notes:
        logging.getLogger(__name__).info(note)
    # For the first weights; every later draw is a function of the seed and a counter.
    seed_all_rng(cfg.SEED + comm.get_rank())
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK and not args.eval_only
    return cfg


def read_cfg(args: argparse.Namespace) -> tuple[Any, list[str]]:
    """The config of a run: file and overrides read, data registered, epochs resolved, the schedule scaled to the batch.

    Args:
        args: of Detectron2's `default_argument_parser`. An evaluation has no schedule, and needs no training lists.

    Returns:
        the config, not frozen, and what is to be logged of its schedule.

    Raises:
        InputError: on anything wrong in the config or in the data set's description, or epochs of a missing list.
    """
    if not args.config_file and not args.opts:
        raise InputError("--config-file: is missing; give one, such as configs/quickstart.yaml")
    cfg = load_cfg(args.config_file, args.opts)
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    setup_datasets(cfg)
    notes, solver = [], cfg.SOLVER
    if not args.eval_only and (steps := resolve_epochs(cfg)):
        notes.append(f"epochs of {steps} steps: SOLVER.MAX_ITER {solver.MAX_ITER}")
    if scale_schedule(cfg, given=args.opts[::2]):
        batch = f"schedule scaled to a batch of {solver.IMS_PER_BATCH} images"
        notes.append(f"{batch}: SOLVER.BASE_LR {solver.BASE_LR:g}, SOLVER.MAX_ITER {solver.MAX_ITER}")
    return cfg, notes


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


_LOGGERS = ("fvcore", "detectron2", "wpl_d2")
_NEVER = logging.CRITICAL + 1


def begin_log() -> None:
    """Log on the main process's terminal, and keep all of it for `open_log`."""
    for name in _LOGGERS:
        setup_logger(distributed_rank=comm.get_rank(), name=name)
    _attach(MemoryHandler(capacity=1000, flushLevel=_NEVER))


def open_log(folder: Path) -> None:
    """Log into a file of the folder too, from what was said since `begin_log` on.

    Args:
        folder: gets `log.txt` and, of further processes, `log.txt.rank1` and so on.

    Raises:
        InputError: it cannot be written.
    """
    rank = comm.get_rank()
    path = folder / (f"log.txt.rank{rank}" if rank else "log.txt")
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = _LogFile(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", datefmt="%m/%d %H:%M:%S"))
    for kept in logging.getLogger("wpl_d2").handlers:
        if isinstance(kept, MemoryHandler):
            kept.setTarget(file)
            kept.flush()
    _attach(file)


def _attach(handler: logging.Handler) -> None:
    """Put a handler into the place of the one that these functions attached before."""
    for logger in map(logging.getLogger, _LOGGERS):
        for earlier in [known for known in logger.handlers if isinstance(known, MemoryHandler | _LogFile)]:
            logger.removeHandler(earlier)
            earlier.close()
        logger.addHandler(handler)


class _LogFile(logging.FileHandler):
    """A full disk does not end the run that is logged, and is told once: the terminal has the rest."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            print(f"warning: {self.baseFilename}: lacks what follows ({error.strerror})", file=sys.stderr)
