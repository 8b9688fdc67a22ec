"""The output folder of a training: whose it is, what an earlier run left in it, and whether there is room."""

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
_TRIES, _PAUSE = 5, 0.2  # seconds; another process may just be looking whether the folder is free
_HELD: dict[Path, IO[str]] = {}
"""The open lock files of this process, by folder: the lock is gone when they are, however the process ends."""

_CHECKPOINTS = ("model_*.pth", "last_checkpoint")
_OF_A_RUN = (
    *_CHECKPOINTS,
    *("metrics.json", "events.out.tfevents.*", "log.txt*", "config.yaml", "environment.txt", "preview.png"),
    "inference",
)
"""What a training leaves in its folder."""


def check_folder_free(folder: Path) -> None:
    """Check that a training can have a folder, which is made.

    Raises:
        InputError: it cannot be written, or another training has it.
    """
    if folder.resolve() not in _HELD:
        _open_and_lock(folder).close()


def lock_folder(folder: Path) -> None:
    """Keep other trainings out of a folder until `unlock_folder`, or until this process ends in whatever way.

    The lock holds among the machines that share the disk too, where its file system has locks. In one process two
    trainers can have one folder.

    Raises:
        InputError: it cannot be written, or another training has it.
    """
    place = folder.resolve()
    if place in _HELD:
        return
    file = _open_and_lock(folder)
    with clear_write_errors(folder / _LOCK):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        file.flush()
    _HELD[place] = file


def unlock_folder(folder: Path) -> None:
    """Let other trainings have a folder again; nothing is done if it is not claimed."""
    if file := _HELD.pop(folder.resolve(), None):
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


def _forget() -> None:
    # A lock is one with all copies of its file: a loader's worker that outlives its parent would keep it.
    for file in _HELD.values():
        file.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_forget)


def has_previous_run(folder: Path) -> bool:
    """Whether a training in a folder got so far that it left something to keep."""
    metrics = folder / "metrics.json"
    return bool(_matches(folder, _CHECKPOINTS)) or (metrics.is_file() and metrics.stat().st_size > 0)


def move_aside(folder: Path) -> Path | None:
    """Move what an earlier run left in a folder into a folder below it: nothing of it is of the run that begins.

    Returns:
        `earlier`, or the first of `earlier_2`, `earlier_3`, ... that is free; None if there was no run.
    """
    if not has_previous_run(folder):
        return None
    aside = unused_path(folder / "earlier")
    with clear_write_errors(aside):
        aside.mkdir()
        for path in _matches(folder, _OF_A_RUN):
            path.replace(aside / path.name)
    return aside


def _matches(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def check_disk_space(folder: Path, size: int, count: int) -> None:
    """Check that checkpoints will have room.

    Args:
        folder: of the training.
        size: bytes of one checkpoint.
        count: how many there will be at once, beside those that are there.

    Raises:
        InputError: there is no room for a single one.
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
