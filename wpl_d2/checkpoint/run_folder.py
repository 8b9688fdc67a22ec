"""The output folder of a training: its lock, the files of an earlier run, and its disk space."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from datetime import datetime
from pathlib import Path
from typing import IO

from ..utils.errors import InputError
from ..utils.files import clear_write_errors, format_bytes, free_space, unused_path

logger = logging.getLogger(__name__)

_LOCK = ".lock"
_TRIES, _PAUSE = 5, 0.2  # seconds; another process may just be checking whether the folder is free
_LOCKED: dict[Path, IO[str]] = {}
"""This process's open lock files by folder. The lock ends with them, however the process ends."""

_CHECKPOINTS = ("model_*.pth", "last_checkpoint")
RUN_FILES = (
    *_CHECKPOINTS,
    *("metrics.json", "events.out.tfevents.*", "log.txt*", "config.yaml", "fitted.json", "environment.txt"),
    *("preview.png", "mlflow_run", "wandb_run", "wandb"),
    *("inference", "report", "report.html", "report.json", "suggested.html", "suggested.txt"),
)
"""The files of a training."""
PHASES = "phases"
"""The subfolder of the trainings before the last one of a plan, each in a folder of its own."""


def check_folder_free(folder: Path) -> None:
    """Create a folder, and check that a training can use it.

    Raises:
        InputError: it cannot be written to, or another training uses it.
    """
    if folder.resolve() not in _LOCKED:
        _open_and_lock(folder).close()


def lock_folder(folder: Path) -> None:
    """Lock a folder against other trainings until `unlock_folder`, or until this process ends.

    Machines that share the disk are locked out too, if its file system supports locks. Trainers in one process may
    share a folder.

    Raises:
        InputError: the folder cannot be written to, or another training uses it.
    """
    place = folder.resolve()
    if place in _LOCKED:
        return
    file = _open_and_lock(folder)
    with clear_write_errors(folder / _LOCK):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        file.flush()
    _LOCKED[place] = file


def unlock_folder(folder: Path) -> None:
    """Unlock a folder, if it is locked."""
    if file := _LOCKED.pop(folder.resolve(), None):
        file.close()


def _open_and_lock(folder: Path) -> IO[str]:
    with clear_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with clear_write_errors(folder / _LOCK):
        file = (folder / _LOCK).open("a+")
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(_PAUSE)
        except OSError as error:
            logger.warning("%s: has no locks (%s); do not train twice at once in it", folder, error.strerror)
            return file
    with file:
        file.seek(0)
        holder = file.read().strip() or "another process"
    raise InputError(
        f"OUTPUT_DIR: {folder} is in use by another training ({holder}); wait for its end, or choose another folder"
    )


def _close_inherited() -> None:
    # All copies of an open file share its lock: a loader's worker that outlives its parent would keep it.
    for file in _LOCKED.values():
        file.close()
    _LOCKED.clear()


os.register_at_fork(after_in_child=_close_inherited)


def has_previous_run(folder: Path) -> bool:
    """Whether a folder has a checkpoint or metrics of a training."""
    metrics = folder / "metrics.json"
    return bool(_matches(folder, _CHECKPOINTS)) or (metrics.is_file() and metrics.stat().st_size > 0)


def move_aside(folder: Path, phases: bool = False) -> Path | None:
    """Move the files of an earlier run into a subfolder, so that a new run does not mix with them.

    Args:
        folder: of both runs.
        phases: whether to move the trainings before it too, where it is the last one of a plan.

    Returns:
        the first unused of `earlier`, `earlier_2`, ..., or None if there was no run.
    """
    if not has_previous_run(folder) and not (phases and (folder / PHASES).is_dir()):
        return None
    aside = unused_path(folder / "earlier")
    with clear_write_errors(aside):
        aside.mkdir()
        for path in _matches(folder, (*RUN_FILES, PHASES) if phases else RUN_FILES):
            path.replace(aside / path.name)
    return aside


def _matches(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def check_disk_space(folder: Path, size: int, count: int) -> None:
    """Check that the disk has space for checkpoints, and warn if only for some of them.

    Args:
        folder: of the training.
        size: bytes per checkpoint.
        count: how many there will be, beside existing ones.

    Raises:
        InputError: there is not even space for one.
    """
    free = free_space(folder)
    if free < size:
        raise InputError(
            f"OUTPUT_DIR: {folder} has {format_bytes(free)} free, and one checkpoint takes {format_bytes(size)}; "
            "make room there, or choose a folder on another disk"
        )
    if free < size * count:
        logger.warning(
            "OUTPUT_DIR: %s has %s free, and the %d checkpoints to come take %s each; make room there, or lower "
            "SOLVER.CHECKPOINTS_TO_KEEP",
            *(folder, format_bytes(free), count, format_bytes(size)),
        )
