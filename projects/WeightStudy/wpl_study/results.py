"""What finished runs gave: a CSV that several processes may append to, and the judged pseudo-labels beside it."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path

from wpl_d2.engine import last_value, read_json, read_metrics
from wpl_d2.utils.errors import InputError

from .runs import Run, judged_file

FILE = "results.csv"
FIGURES = ("dev_teacher", "dev_student", "val_teacher", "val_student")


@dataclass(frozen=True)
class Result:
    """A line of the CSV. Text, and numbers as text; "" where there is none, such as a teacher in supervised training.

    Attributes:
        row: the row's name.
        draw: the draw's.
        seed: of the training.
        commit: `git describe` of the code that trained it, with -dirty where it had changes; several where it was
            stopped and went on with another.
        steps: of the training.
        seconds_per_step: the median of the second half of the steps, beside what else ran.
        dev_teacher: mIoU of the teacher on the list `dev`, after the last step.
        dev_student: likewise.
        val_teacher: likewise, on `val`.
        val_student: likewise.
        finished: when.
        command: what trained it.
    """

    row: str
    draw: str
    seed: str
    commit: str
    steps: str
    seconds_per_step: str
    dev_teacher: str
    dev_student: str
    val_teacher: str
    val_student: str
    finished: str
    command: str

    def deployed(self, which: str) -> float | None:
        """The mIoU, on "dev" or "val", of the model to use: the teacher where there is one; None if not measured."""
        value = getattr(self, f"{which}_teacher") or getattr(self, f"{which}_student")
        return float(value) if value else None


Key = tuple[str, str]
"""Names of row and draw."""


def read_results(root: Path) -> dict[Key, Result]:
    """All finished runs.

    Args:
        root: of all runs.

    Raises:
        InputError: the file is damaged.
    """
    file = root / FILE
    if not file.is_file():
        return {}
    with file.open(newline="") as lines:
        fcntl.flock(lines, fcntl.LOCK_SH)
        return _parse(lines.read(), file)


def append_result(root: Path, result: Result) -> None:
    """Write a line to the CSV at once, whole, and only where there is none of its row and draw.

    Args:
        root: of all runs.
        result: of a finished one.

    Raises:
        InputError: the file is damaged.
    """
    file = root / FILE
    with file.open("a+", newline="") as out:
        fcntl.flock(out, fcntl.LOCK_EX)  # until it is closed
        out.seek(0)
        known = _parse(text, file) if (text := out.read()) else {}
        if (result.row, result.draw) in known:
            return
        lines = io.StringIO()
        writer = csv.DictWriter(lines, [field.name for field in fields(Result)], lineterminator="\n")
        if not text:
            writer.writeheader()
        writer.writerow(asdict(result))
        out.write(lines.getvalue())
        out.flush()
        os.fsync(out.fileno())


def measure(run: Run, commit: str) -> Result:
    """The line of a training that came to its end.

    Args:
        run: whose folder has its metrics.
        commit: see `Result`.

    Raises:
        InputError: its metrics are damaged, or lack the last evaluation.
    """
    file, lists = run.folder / "metrics.json", run.study.lists
    rows = read_metrics(file)
    scores = {}
    for name, of in (("dev", ""), ("val", f"{lists.val}/")):
        first, student = (last_value(rows, f"{model}{of}sem_seg/mIoU") for model in ("", "student/"))
        # Where there is no teacher, the first model to be evaluated is the student, and the only one.
        pair = (first, student) if student is not None else (None, first)
        scores |= {
            f"{name}_{kind}": "" if v is None else f"{v:.4f}"
            for kind, v in zip(("teacher", "student"), pair, strict=True)
        }
    if not scores["dev_student"]:
        raise InputError(f"{file}: has no mIoU on {lists.dev}; remove {run.folder} and run it again")
    times = [row["time"] for row in rows if "time" in row]
    return Result(
        row=run.row.name,
        draw=run.draw.name,
        seed=str(run.draw.seed),
        commit=commit,
        steps=str(run.config.SOLVER.MAX_ITER),
        seconds_per_step=f"{statistics.median(times[len(times) // 2 :]):.4f}" if times else "",
        **scores,
        finished=datetime.now().isoformat(timespec="seconds"),
        command=shlex.join(run.training),
    )


def read_judged(root: Path, result: Result, step: int, images: int) -> Mapping[str, float] | None:
    """What is known of the pseudo-labels of a run, see `PseudoLabelEvaluator`; None where it was not measured.

    Args:
        root: of all runs.
        result: the run's.
        step: after which.
        images: how many they are of.

    Raises:
        InputError: the file is damaged.
    """
    file = judged_file(root / result.row / result.draw, step, images)
    return read_json(file.read_text(), file)["pseudo_labels"] if file.is_file() else None


def _parse(text: str, file: Path) -> dict[Key, Result]:
    results = {}
    reader, ended = csv.DictReader(io.StringIO(text)), text.count("\n")
    for line in reader:
        try:
            if None in line.values() or reader.line_num > ended:
                raise ValueError
            result = Result(**line)
            for figure in FIGURES:
                float(getattr(result, figure) or 0)
        except (TypeError, ValueError) as error:
            mend = "take it out, its run is then run again"
            raise InputError(f"{file}, line {reader.line_num}: is damaged; {mend}") from error
        results[result.row, result.draw] = result
    return results
