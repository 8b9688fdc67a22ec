"""The start of a run, with its config, folder and log, and the report at its end."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from ..checkpoint.run_folder import check_folder_free, has_previous_run
from ..config import get_cfg, load_cfg
from ..config.config import fitted_settings
from ..config.fitting import Setting
from ..config.validation import warn_unused
from ..data import setup_datasets
from ..frameworks import Framework
from ..utils.errors import InputError
from ..utils.files import clear_write_errors, write_text
from ..visualization import optional_picture, render_preview
from .solver import resolve_epochs, scale_schedule


def setup(args: argparse.Namespace) -> Any:
    """Set up a process of a run: read the config, register the data sets, open the log, seed the generators.

    Args:
        args: of Detectron2's `default_argument_parser`, accepted by `check_run`.

    Returns:
        the frozen config.

    Raises:
        InputError: see `read_cfg`.
    """
    cfg, notes = read_cfg(args)
    if cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed() % 2**31
    cfg.freeze()
    settings = [] if args.eval_only else fitted_settings(args.config_file, args.opts)
    _open_run(cfg, settings, args.eval_only)
    warn_unused(cfg, get_cfg())
    for note in (*notes, *_describe(settings)):
        logging.getLogger(__name__).info(note)
    # For initial weights; later random numbers depend on the seed and a counter only.
    seed_all_rng(cfg.SEED + comm.get_rank())
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK and not args.eval_only
    return cfg


def _describe(settings: Sequence[Setting]) -> list[str]:
    """What is to be logged of settings that fit the data: those of one reason in a line."""
    if not settings:
        return []
    keys: dict[str, list[str]] = {}
    for key, value, reason in settings:
        keys.setdefault(reason, []).append(f"{key} {value}")
    lines = [f"{', '.join(of_reason)}: {reason}" for reason, of_reason in keys.items()]
    return ["\n  ".join(["settings that fit the data (KEY VALUE on the command line overrides):", *lines])]


def read_cfg(args: argparse.Namespace) -> tuple[Any, list[str]]:
    """Read the config of a run, register its data sets, resolve epochs, and scale its schedule to the batch.

    Args:
        args: of Detectron2's `default_argument_parser`. An evaluation has no schedule, and needs no training lists.

    Returns:
        the config, not frozen, and what is to be logged of its schedule.

    Raises:
        InputError: the config or the data set's description is wrong, or epochs are counted of a missing list.
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


def _open_run(cfg: Any, settings: Sequence[Setting], eval_only: bool) -> None:
    output = Path(cfg.OUTPUT_DIR)
    start_log()
    if eval_only:
        open_log(output)
    else:
        if comm.is_main_process():
            check_folder_free(output)
        if not has_previous_run(output):
            save_run_info(cfg, settings)
    logging.getLogger(__name__).info(
        "%s\n  device: %s, processes: %d, config and environment: %s",
        shlex.join(sys.argv),
        cfg.MODEL.DEVICE,
        comm.get_world_size(),
        output,
    )


def save_run_info(cfg: Any, settings: Sequence[Setting] = ()) -> None:
    """Write config, environment, log (since `setup`) and the reasons of fitted settings of a training to its folder.

    `setup` does this in a folder without an earlier run. Otherwise call it after `Trainer.resume_or_load`: a start that
    fails must leave nothing beside the earlier run's checkpoints. Unlike Detectron2's `default_setup` it does not print
    config and environment.

    Args:
        cfg: of `setup`.
        settings: of `fitted_settings`.

    Raises:
        InputError: the folder cannot be written to.
    """
    output = Path(cfg.OUTPUT_DIR)
    if comm.is_main_process():
        write_text(output / "config.yaml", cfg.dump())
        write_text(output / "environment.txt", collect_env_info())
        if settings:
            rows = [setting._asdict() for setting in settings]
            write_text(output / "fitted.json", json.dumps(rows, indent=1) + "\n")
    open_log(output)


_LIBRARIES = ("fvcore", "detectron2")
_LOGGERS = (*_LIBRARIES, "py.warnings", "wpl_d2")
_NEVER = logging.CRITICAL + 1


def start_log() -> None:
    """Start logging to the main process's terminal, and buffer everything for `open_log`.

    What libraries say of their work, and their warnings to developers, do not reach the terminal.
    """
    logging.captureWarnings(True)
    for name in (*_LIBRARIES, "wpl_d2"):
        setup_logger(distributed_rank=comm.get_rank(), name=name)
    for name in _LIBRARIES:
        for handler in logging.getLogger(name).handlers:
            if type(handler) is logging.StreamHandler:
                handler.setLevel(logging.WARNING)
    _attach(MemoryHandler(capacity=1000, flushLevel=_NEVER))


def open_log(folder: Path) -> None:
    """Log to a file too, including what was buffered since `start_log`.

    Args:
        folder: gets `log.txt` of the main process, `log.txt.rank1` and so on of the others.

    Raises:
        InputError: it cannot be written.
    """
    rank = comm.get_rank()
    path = folder / (f"log.txt.rank{rank}" if rank else "log.txt")
    with clear_write_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = _LogFile(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", datefmt="%m/%d %H:%M:%S"))
    for handler in logging.getLogger("wpl_d2").handlers:
        if isinstance(handler, MemoryHandler):
            handler.setTarget(file)
            handler.flush()
    _attach(file)


def _attach(handler: logging.Handler) -> None:
    """Attach a handler in place of the one that these functions attached before."""
    for logger in map(logging.getLogger, _LOGGERS):
        for earlier in [known for known in logger.handlers if isinstance(known, MemoryHandler | _LogFile)]:
            logger.removeHandler(earlier)
            earlier.close()
        logger.addHandler(handler)


class _LogFile(logging.FileHandler):
    """A log file that reports a full disk once, without ending the run."""

    _reported = False

    def close(self) -> None:
        """Close it, whatever of it could not be written; `handleError` has said so."""
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._reported:
            self._reported = True
            print(f"warning: {self.baseFilename}: lacks what follows ({error.strerror})", file=sys.stderr)


def report_results(cfg: Any, results: Mapping[str, Any], framework: Framework | None = None) -> None:
    """Log the results of a run and where its files are, on the main process.

    Args:
        cfg: the run's config.
        results: of `evaluate`.
        framework: given after a training, to draw the preview picture.

    Raises:
        SystemExit: with status 1, on all processes, if images were left out of an evaluation.
    """
    if comm.is_main_process():
        _log_results(cfg, results, framework)
    if "left_out" in results:
        comm.synchronize()  # the launcher ends all ranks once one has exited, and the main one may still write
        raise SystemExit(1)


def _log_results(cfg: Any, results: Mapping[str, Any], framework: Framework | None) -> None:
    output = Path(cfg.OUTPUT_DIR)
    files = {"log": output / "log.txt"}
    if framework is not None:
        files |= {"checkpoint": output / "model_final.pth", "best checkpoint": output / "model_best.pth"}
        files |= {"metrics": output / "metrics.json"}
        if "sem_seg" in results:
            with optional_picture("the preview"):
                render_preview(cfg, framework, output / "preview.png")
                files["preview"] = output / "preview.png"
        files["report"] = output / "report.html"
    lines = [f"{name}: {path}" for name, path in files.items() if path.exists()]
    if "sem_seg" in results:
        lines.insert(0, f"mIoU on {cfg.DATASETS.TEST[0]}: {results['sem_seg']['mIoU']:.2f}")
    elif "bbox" in results:
        lines.insert(0, f"box AP on {cfg.DATASETS.TEST[0]}: {results['bbox']['AP']:.2f}")
    if "left_out" in results:
        lines.append("images were left out of an evaluation, see the warnings: the exit status is 1")
    logging.getLogger(__name__).info("Done.\n  %s", "\n  ".join(lines))
