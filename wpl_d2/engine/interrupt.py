"""SIGTERM and Ctrl-C as a request that the training loop answers between two steps."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from detectron2.utils import comm

from ..utils.signals import STOP_SIGNALS, blocked_signals

IN_TORCHRUN = "TORCHELASTIC_RUN_ID"
"""A variable that torchrun sets."""
_ONE_REQUEST = 5.0
"""Seconds in which further signals are the same request."""


class StopRequest:
    """While entered, the first SIGTERM or SIGINT is noted; a later one acts as usual.

    But not in a process that a launcher started, which forwards, perhaps late, what a whole job got already: it is the
    launcher that ends its processes when it gets a later one.

    All processes of a run enter it, and leave it for a while, together: none can be ended by a signal while another one
    notes it and goes on into a step, where it would wait for the first.

    Attributes:
        signum: the signal that came, or 0.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._noted = 0.0
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> StopRequest:
        with blocked_signals():
            comm.synchronize()
            for signum in STOP_SIGNALS:
                self._previous[signum] = signal.signal(signum, self._note)
        return self

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Inside, a signal acts as usual: for work that can be lost, after everything else is saved."""
        signum = max(comm.all_gather(self.signum))
        self._restore()
        if signum := signum or self.signum:
            signal.raise_signal(signum)
        yield
        self.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        # Signal handlers are per process and run in the main thread: nothing to lock.
        if not self.signum:
            self.signum, self._noted = signum, time.monotonic()
        elif not _has_launcher() and time.monotonic() - self._noted > _ONE_REQUEST:
            self._restore()
            signal.raise_signal(signum)

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}


def _has_launcher() -> bool:
    return multiprocessing.parent_process() is not None or IN_TORCHRUN in os.environ
