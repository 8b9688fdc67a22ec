"""Runs a study: several runs at a time, each from where it was stopped, each finished one written down at once."""

from __future__ import annotations

import fcntl
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TextIO

import wpl_d2
from wpl_d2.engine import read_json
from wpl_d2.utils.errors import InputError
from wpl_d2.utils.files import replace_file

from .processes import Processes, Stopped
from .results import append_result, measure, read_results
from .runs import LAST, Command, Judging, Run
from .study import REPOSITORY

BEGUN = "run.json"
"""In a run's folder: its settings, and the commits that trained it."""
LOG = "terminal.txt"
"""In a run's folder: what its commands said."""


class Taken(Exception):
    """Another process is at it."""


class Runner:
    """Runs the runs of a study.

    Attributes:
        failed: names of what could not be run.
    """

    def __init__(self, root: Path, jobs: int) -> None:
        """Prepare.

        Args:
            root: of all runs.
            jobs: how many run at a time.
        """
        self.root = root
        self.jobs = jobs
        self.failed: list[str] = []
        self._processes = Processes(jobs)

    def run(self, runs: Sequence[Run]) -> None:
        """Train and judge what is not finished. What cannot be run is named and put into `failed`; the others go on.

        Args:
            runs: of one study.

        Raises:
            SystemExit: a signal came; all that ran has saved.
        """
        rows = {run.row.name: run for run in runs}
        good = {name for name, run in rows.items() if self._attempt(name, lambda run=run: run.config)}
        known = [run for run in runs if run.row.name in good]
        with self._processes.end_on_signals(), ThreadPoolExecutor(self.jobs) as pool:
            asking = {run.draw.name: run for run in known if run.row.asks_for_boxes and self._is_due(run)}
            detectors = [(f"detector of {draw}", partial(self._detect, run)) for draw, run in asking.items()]
            for tasks in (detectors, [(run.name, partial(self._finish, run)) for run in known]):
                list(pool.map(lambda task: self._attempt(*task), tasks))
        if self._processes.signum:
            say("stopped; the same command goes on")
            raise SystemExit(128 + self._processes.signum)

    def _attempt(self, name: str, task: Callable[[], object]) -> bool:
        if self._processes.signum:
            return False
        try:
            task()
            return True
        except Taken:
            say(f"{name}: is left to another process, which is at it")
        except InputError as error:
            say(f"{name}: error: {error}")
            self.failed.append(name)
        except Stopped:
            pass
        return False

    def _is_due(self, run: Run) -> bool:
        """Whether something of it is left to train or to judge."""
        return run.key not in read_results(self.root) or bool(_due_judgings(run))

    def _detect(self, run: Run) -> None:
        """Train the draw's detector and keep its boxes, if they are not there."""
        detector = run.study.detector
        if detector is None or run.boxes.is_file():
            return
        with self._alone(run.boxes.parent, wait=True) as lock:
            for file, command in run.detector_commands(detector):
                if not file.is_file():
                    say(f"detector of {run.draw.name}: {Path(command[0]).name}")
                    self._call(command, run.boxes.parent, lock)

    def _finish(self, run: Run) -> None:
        with self._alone(run.folder) as lock:
            self._train(run, lock)
            for judging in _due_judgings(run):
                self._call(judging.command, run.folder, lock)
            # Only judging needed more than the last one.
            for checkpoint in run.folder.glob("model_*.pth"):
                if checkpoint.name != LAST:
                    checkpoint.unlink()

    def _train(self, run: Run, lock: TextIO) -> None:
        commits = _begun_by(run)
        if run.key in read_results(self.root):
            return
        if run.row.asks_for_boxes and not run.boxes.is_file():
            raise InputError(f"{run.boxes}: is missing, its detector could not be made")
        commits = list(dict.fromkeys([*commits, describe_code()]))
        text = json.dumps({"settings": run.settings, "commits": commits}, indent=1)
        replace_file(run.folder / BEGUN, lambda unfinished: unfinished.write_text(text))
        say(f"{run.name}: trains")
        self._call(run.training, run.folder, lock)
        result = measure(run, " and ".join(commits))
        append_result(self.root, result)
        say(f"{run.name}: finished, mIoU on {run.study.lists.dev}: {result.deployed('dev'):.2f}")

    def _call(self, command: Command, folder: Path, lock: TextIO) -> None:
        log = folder / LOG
        start = log.stat().st_size if log.is_file() else 0
        status = self._processes.call(command, log, lock.fileno())
        if status == 0:
            return
        if self._processes.signum:
            raise Stopped
        lines = [line.strip() for line in log.read_bytes()[start:].decode(errors="replace").splitlines()]
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        said = [*filter(None, lines), *told]
        raise InputError(
            f"{said[-1] if said else 'said nothing'} ({Path(command[0]).name} ended with status {status}; see {log})"
        )

    @contextmanager
    def _alone(self, folder: Path, wait: bool = False) -> Iterator[TextIO]:
        """Holds a folder's lock. So do the processes that are given its file: those of a killed study hold it on."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._processes.signum:
                        raise Stopped from None
                    if not wait:
                        raise Taken from None
                    time.sleep(1)
            yield lock


def _due_judgings(run: Run) -> list[Judging]:
    """What is left to measure of the pseudo-labels of checkpoints that are there."""
    return [judging for judging in run.judgings() if judging.checkpoint.is_file() and not judging.file.is_file()]


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"{datetime.now():%H:%M} {text}", flush=True)


def describe_code() -> str:
    """`git describe` of the package, and of this project where that is from another place; "unknown" outside of git."""
    places = dict.fromkeys((Path(wpl_d2.__file__).resolve().parents[1], REPOSITORY))
    return " + ".join(dict.fromkeys(_describe(place) for place in places))


def _describe(place: Path) -> str:
    command = ["git", "-C", str(place), "describe", "--always", "--dirty"]
    if not (place / ".git").exists():
        return "unknown"  # a copy of the code, though perhaps inside of another repository
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _begun_by(run: Run) -> list[str]:
    """The commits that have trained a run so far.

    Raises:
        InputError: it was begun with other settings: a row must be the same on all draws and after each stop.
    """
    begun = run.folder / BEGUN
    if not begun.is_file() or not (run.folder / "last_checkpoint").is_file():
        return []  # nothing was trained yet
    before, now = read_json(begun.read_text(), begun), run.settings
    former = before["settings"]
    keys = [key for key in {**now, **former} if now.get(key) != former.get(key)]
    if keys:
        changed = ", ".join(f"{key} was {former.get(key, 'not set')}, is {now.get(key, 'not set')}" for key in keys[:3])
        raise InputError(
            f"{run.folder}: was run with other settings ({changed}); give the row another name, or remove the folder "
            "and its line in results.csv"
        )
    return before["commits"]
