"""The report of a study, in Markdown."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from wpl_d2.engine import Spread
from wpl_d2.evaluation.box_agreement import OBJECTS

from .answer import answer, compared_text, signed
from .results import Result
from .study import DRAW, Judge, Row
from .table import Judged, Table, auroc_scores

NOT_RUN, NOT_MEASURED = "not run", "not measured"
_TOOL = "projects/WeightStudy/weight_study.py"
_SCOPES = ("pixel", "sure", f"sure-{OBJECTS}")
_PARTS = ("", f"-{OBJECTS}")

_ABOUT_LABELS = """\
## Pseudo-labels

Of {images} unlabeled images with masks, always the same ones of a draw, after the last step, in %: which share of the
labels trains (their confidence reaches the row's threshold), how many of these are right, and the same with each label
counted by its weight. Foreground: what is labeled as an object of the data set, or, where that names none, as any class
but the first. Calibration error: how far confidence and accuracy of all labels are apart. An oracle's labels are those
of its teacher. (n): of n draws, where that is not all."""
_ABOUT_AUROC = """\
## AUROC of right labels, by score

Rows that are not listed are not measured. Of all pixels / of those with a confidence of RPPI.CONF and more / of the
foreground among these; (n): of n draws, where that is not all. A training without weights is judged with a memory bank
of its labeled images. Scores by rank take the row's own number of channels, WEIGHTING.K."""


def study_text(table: Table, pictures: Mapping[str, Path], file: Path) -> str:
    """The report.

    Args:
        table: what is known.
        pictures: by title, files beside the report.
        file: the study's, for the commands.
    """
    study = table.study
    done = len(_results(table))
    parts = [
        f"# {study.title}",
        f"{done} of {len(study.rows) * len(study.draws)} runs are finished, over `{os.path.relpath(study.base)}`. "
        "mIoU is that after the last step: mean ± standard deviation (number of draws).",
        f"## Which weight is good here?\n\n{answer(table)}",
        *(f"## {question}\n\n{compared_text(table, rows)}" for question, rows in study.questions.items()),
        f"## mIoU\n\n{_mean_table(table)}",
        f"The model to use, the teacher where there is one, on `{study.lists.dev}`, and its difference to the row it "
        f"is compared with:\n\n{_draw_table(table)}",
    ]
    if study.judge is not None:
        parts += _label_parts(table, study.judge)
    parts += [f"## {title}\n\n![{title}]({file.name})" for title, file in pictures.items()]
    parts.append(f"## How it was run\n\n{_run_text(table, os.path.relpath(file))}")
    return "\n\n".join(parts) + "\n"


def _run_text(table: Table, file: str) -> str:
    """Draws, commits, and the commands that go on and that make this report."""
    study, counts = table.study, Counter(result.commit for result in _results(table))
    names = (study.lists.labeled, study.lists.unlabeled)
    lines = [
        [draw.name, str(draw.seed), *(f"`{name.replace(DRAW, draw.suffix)}`" for name in names)]
        for draw in study.draws.values()
    ]
    commits = ", ".join(f"{commit} ({count})" for commit, count in counts.items())
    return (
        f"{_pipe(['draw', 'seed', 'labeled', 'unlabeled'], lines)}\n\n"
        "What is not run, a row of it, this report:\n\n```sh\n"
        f"{_TOOL} run {file}\n{_TOOL} run {file} --rows ROW\n{_TOOL} collect {file}\n```\n\n"
        f"`results.csv` has the command of each run. Runs by commit: {commits}. Seconds a step are beside whatever ran."
    )


def _results(table: Table) -> list[Result]:
    return [result for row in table.study.rows.values() for result in table.runs(row).values()]


def _mean_table(table: Table) -> str:
    lists = table.study.lists
    sets = {"dev": lists.dev} | ({"val": lists.val} if lists.val else {})
    lines = []
    for row in table.study.rows.values():
        cells = [NOT_RUN]
        if table.runs(row):
            cells = [cell for which in sets for cell in _mean_cells(table, row, which)]
            seconds = Spread.of(table.figures(row, "seconds_per_step").values())
            cells.append(f"{seconds.mean:.3f}" if seconds.count else "")
        lines.append([row.name, *cells])
    heads = [head for name in sets.values() for head in (f"{name}: teacher", "student", "paired difference", "t")]
    return _pipe(["row", *heads, "s a step"], lines)


def _mean_cells(table: Table, row: Row, which: str) -> list[str]:
    models = [str(Spread.of(table.figures(row, f"{which}_{model}").values())) for model in ("teacher", "student")]
    pairs = Spread.of(table.pairs(row, which).values())
    return [*models, signed(pairs) if pairs.count else "", "" if math.isnan(pairs.t) else f"{pairs.t:.1f}"]


def _draw_table(table: Table) -> str:
    lines = []
    for row in table.study.rows.values():
        scores, pairs = table.scores(row, "dev"), table.pairs(row, "dev")
        cells = [
            f"{scores[draw]:.2f}" + (f" ({pairs[draw]:+.2f})" if draw in pairs else "") if draw in scores else NOT_RUN
            for draw in table.study.draws
        ]
        lines.append([row.name, "" if row.plain == row.name else row.plain, *cells])
    return _pipe(["row", "compared with", *table.study.draws], lines)


def _label_parts(table: Table, judge: Judge) -> list[str]:
    parts = [_ABOUT_LABELS.format(images=judge.images), _label_table(table), _ABOUT_AUROC]
    last = max((int(result.steps) for result in _results(table)), default=0)
    for step in (*(step for step in judge.steps if step < last), None):
        when = "the last step" if step is None else f"step {step}"
        parts.append(f"After {when}:\n\n{_auroc_table(table, step)}")
    return parts


def _label_table(table: Table) -> str:
    lines = []
    for row in table.study.rows.values():
        judged = table.judged(row)
        lines.append([row.name, *(_label_cells(table, row, judged) if judged else [NOT_MEASURED])])
    four = ("share", "right", "weighted share", "weighted right")
    heads = [f"foreground: {head}" if part else head for part in _PARTS for head in (*four, "calibration error")]
    return _pipe(["row", *heads], lines)


def _label_cells(table: Table, row: Row, judged: Judged) -> list[str]:
    cells, weighted = [], table.weighted(row)
    for part in _PARTS:
        figures = [
            f"{figure}-{group}{part}" for group in ("confident", "weighted") for figure in ("coverage", "accuracy")
        ]
        cells += [_means(table, judged, [name], 1) if weighted or "weighted" not in name else "" for name in figures]
        cells.append(_means(table, judged, [f"calibration-error{part}"], 1))
    return cells


def _auroc_table(table: Table, step: int | None) -> str:
    judged = {row.name: figures for row in table.study.rows.values() if (figures := table.judged(row, step))}
    scores = auroc_scores(judged)
    lines = [
        [name, *(_means(table, figures, [f"auroc-{score}-{scope}" for scope in _SCOPES], 3) for score in scores)]
        for name, figures in judged.items()
    ]
    return _pipe(["row", *scores], lines) if lines else f"{NOT_MEASURED}."


def _means(table: Table, judged: Judged, names: Sequence[str], digits: int) -> str:
    """The means of some figures, with the least number of draws that one of them has, where that is not all."""
    spreads, draws = [judged.get(name, Spread.of(())) for name in names], len(table.study.draws)
    text = " / ".join(f"{spread.mean:.{digits}f}" if spread.count else "-" for spread in spreads)
    least = min((spread.count for spread in spreads if spread.count), default=draws)
    return text if least == draws else f"{text} ({least})"


def _pipe(heads: list[str], lines: list[list[str]]) -> str:
    filled = [line + [""] * (len(heads) - len(line)) for line in lines]
    return tabulate(filled, heads, tablefmt="pipe", disable_numparse=True)
