"""The log of a run: on the terminal at once, and in the run's folder from when it is known to be the run's."""

from __future__ import annotations

import logging
import sys
from logging.handlers import MemoryHandler
from pathlib import Path

from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..files import writing

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
