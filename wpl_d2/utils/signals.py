"""SIGTERM and SIGINT, the signals that ask a run to end, and the processes that a run is made of."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""A scheduler's request to end, and Ctrl-C. Both often go to every process of a run."""


@contextmanager
def blocked_signals(signums: Iterable[int] = STOP_SIGNALS, method: str = "") -> Iterator[None]:
    """Inside, signals wait, and processes that are started begin with them held back until they call `unblock_signals`.

    Args:
        signums: the signals.
        method: how processes will be started in it, by default as `multiprocessing` does.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    if (method or multiprocessing.get_start_method()) != "fork":
        # Python starts this helper with the first process, and lets all signals through then.
        resource_tracker.ensure_running()
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def unblock_signals() -> None:
    """Let signals through that were held back where this process was started."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def set_parent_death_signal(signum: int) -> None:
    """Get `signum` when the process that started this one ends, in whatever way. Linux alone can do it."""
    _prctl_pr_set_pdeathsig(signum)
    parent = multiprocessing.parent_process()
    # It may have ended before; a fork server is no sign of that.
    if parent and os.getppid() != parent.pid and multiprocessing.get_start_method() != "forkserver":
        os.kill(os.getpid(), signum)


@contextmanager
def signal_handlers(handler: Any) -> Iterator[None]:
    """Inside, `STOP_SIGNALS` come to `handler`, a function or one of `signal`'s constants."""
    previous = {signum: signal.signal(signum, handler) for signum in STOP_SIGNALS}
    try:
        yield
    finally:
        for signum, old in previous.items():
            signal.signal(signum, old)


def exit_on_signal(signum: int, frame: FrameType | None) -> None:
    """A handler that says in one line what happened and unwinds the process; another signal ends it at once."""
    for known in STOP_SIGNALS:
        signal.signal(known, signal.SIG_DFL)
    print_stopped(signum)
    raise SystemExit(exit_status(signum))


def print_stopped(signum: int) -> None:
    """Say that a signal ended the run where there was nothing to save."""
    name = signal.Signals(signum).name
    print(f"stopped by {name}; what was saved before is in place", file=sys.stderr, flush=True)


def exit_status(signum: int) -> int:
    """The exit status that shells give to a process that a signal ended."""
    return 128 + signum
