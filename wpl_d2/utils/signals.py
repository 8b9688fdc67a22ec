"""SIGTERM and SIGINT, the signals that ask a run to end, and how its processes answer them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType, TracebackType
from typing import Any

from detectron2.utils import comm
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""A scheduler's request to end, and Ctrl-C. Both often reach every process of a run."""
IN_TORCHRUN = "TORCHELASTIC_RUN_ID"
"""An environment variable that torchrun sets."""
_ONE_REQUEST = 5.0
"""Seconds within which further signals count as the same request."""


class StopRequest:
    """A context in which the first SIGTERM or SIGINT is recorded for the training loop, and a later one acts as usual.

    In a process started by a launcher later signals are ignored: the launcher forwards, perhaps late, what the whole
    job has already received, and ends its processes itself when it gets a second one.

    All processes of a run enter and suspend it together. Otherwise a signal could end one of them while another
    records it, goes on into a step, and waits there for the first.

    Attributes:
        signum: the recorded signal, or 0.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._received = 0.0
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> StopRequest:
        with blocked_signals():
            comm.synchronize()
            for signum in STOP_SIGNALS:
                self._previous[signum] = signal.signal(signum, self._record)
        comm.synchronize()  # none goes on before all of them record
        return self

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let signals act as usual inside: for work that may be lost, since everything else is saved."""
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

    def _record(self, signum: int, frame: FrameType | None) -> None:
        # Python runs signal handlers in the main thread: no lock is needed.
        if not self.signum:
            self.signum, self._received = signum, time.monotonic()
        elif not _has_launcher() and time.monotonic() - self._received > _ONE_REQUEST:
            self._restore()
            signal.raise_signal(signum)

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}


def _has_launcher() -> bool:
    return multiprocessing.parent_process() is not None or IN_TORCHRUN in os.environ


@contextmanager
def blocked_signals(signums: Iterable[int] = STOP_SIGNALS, method: str = "") -> Iterator[None]:
    """Block signals inside. Processes started inside begin with them blocked, until they call `unblock_signals`.

    Args:
        signums: the signals.
        method: the start method of these processes, by default that of `multiprocessing`.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    if (method or multiprocessing.get_start_method()) != "fork":
        # Python starts this helper with the first process, and unblocks all signals then.
        resource_tracker.ensure_running()
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def unblock_signals() -> None:
    """Unblock the `STOP_SIGNALS` that were blocked when this process was started."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def set_parent_death_signal(signum: int) -> None:
    """Have this process receive `signum` when its parent ends, however it ends. Works on Linux alone."""
    _prctl_pr_set_pdeathsig(signum)
    parent = multiprocessing.parent_process()
    # The parent may have ended before. With a fork server another parent id says nothing.
    if parent and os.getppid() != parent.pid and multiprocessing.get_start_method() != "forkserver":
        os.kill(os.getpid(), signum)


@contextmanager
def signal_handlers(handler: Any) -> Iterator[None]:
    """Handle `STOP_SIGNALS` by `handler` inside: a function, or one of `signal`'s constants."""
    previous = {signum: signal.signal(signum, handler) for signum in STOP_SIGNALS}
    try:
        yield
    finally:
        for signum, old in previous.items():
            signal.signal(signum, old)


def exit_on_signal(signum: int, frame: FrameType | None) -> None:
    """A signal handler that exits with one line of explanation; another signal ends the process at once."""
    for known in STOP_SIGNALS:
        signal.signal(known, signal.SIG_DFL)
    print_stopped(signum)
    raise SystemExit(exit_status(signum))


def print_stopped(signum: int) -> None:
    """Print that a signal ended the run at a point where there was nothing to save."""
    name = signal.Signals(signum).name
    print(f"stopped by {name}; what was saved before is in place", file=sys.stderr, flush=True)


def exit_status(signum: int) -> int:
    """The exit status that shells report for a process ended by a signal."""
    return 128 + signum
