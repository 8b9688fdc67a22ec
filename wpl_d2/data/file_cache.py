"""What is computed of files once and kept: arrays in `$WPL_D2_CACHE`, by default `~/.cache/wpl_d2`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ..utils.files import UnwritableError, clear_write_errors, replace_file

_logger = logging.getLogger(__name__)


def cache_file(name: str) -> Path:
    """Where the arrays of that name are, or would be."""
    return Path(os.environ.get("WPL_D2_CACHE", "~/.cache/wpl_d2")).expanduser() / name


def file_state(path: str) -> tuple[str, int, int]:
    """What tells that a file is still the same: its path, its size and its time of change in nanoseconds.

    Size and time are -1 where there is no such file.
    """
    path = os.path.abspath(path)
    try:
        status = os.stat(path)
    except OSError:
        return path, -1, -1
    return path, status.st_size, status.st_mtime_ns


def load_arrays(file: Path, names: Iterable[str]) -> dict[str, np.ndarray] | None:
    """The arrays in a file; None where it is missing or damaged, so that they are to be computed anew."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except Exception:  # its readers raise anything at all on bytes that are something else
        return None


def store_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays into a file that is whole or absent; where none can be written, a warning says so."""

    def write(unfinished: Path) -> None:
        with unfinished.open("wb") as stream:  # given a name, NumPy would add its own ending
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]

    try:
        with clear_write_errors(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, write)
    except UnwritableError as error:
        _logger.warning("%s; or set WPL_D2_CACHE to another folder: until then it is computed anew", error)
