"""Child processes that share the cores, and that are told when this process is to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(Exception):
    """A signal asked for the end."""


class Processes:
    """Runs Python files beside each other, each with its share of the cores and a lower priority than other work.

    Attributes:
        signum: the signal that asked for the end, or 0.
    """

    def __init__(self, jobs: int) -> None:
        """Share the cores.

        Args:
            jobs: how many processes run at a time.
        """
        self.signum = 0
        threads = max(1, len(os.sched_getaffinity(0)) // jobs)
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.RLock()

    def call(self, command: Sequence[str], log: Path, keep_open: int) -> int:
        """Run a command to its end, in any thread.

        Args:
            command: a Python file and its arguments.
            log: gets what it says, behind what is there.
            keep_open: a file descriptor that the process shall hold too.

        Returns:
            its exit status, negative for a signal.

        Raises:
            Stopped: a signal came before it was started.
        """
        with log.open("a") as said:
            with self._lock:
                if self.signum:
                    raise Stopped
                child = subprocess.Popen(
                    ["nice", sys.executable, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    # Ctrl-C comes from here alone, once.
                    start_new_session=True,
                    pass_fds=(keep_open,),
                )
                self._running.add(child)
            try:
                return child.wait()
            finally:
                with self._lock:
                    self._running.discard(child)

    @contextmanager
    def end_on_signals(self) -> Iterator[None]:
        """Inside, signals are passed on: trainings save and leave. What this process ignores stays ignored."""
        previous = {known: signal.getsignal(known) for known in _SIGNALS}
        handled = {known: handler for known, handler in previous.items() if handler != signal.SIG_IGN}
        for known in handled:
            signal.signal(known, self._pass_on)
        try:
            yield
        finally:
            for known, handler in handled.items():
                signal.signal(known, handler)

    def _pass_on(self, signum: int, frame: FrameType | None) -> None:
        with self._lock:
            self.signum = signum
            for child in self._running:
                child.send_signal(signal.SIGTERM)
