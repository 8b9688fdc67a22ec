"""The pictures of a study."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from wpl_d2.engine import Spread
from wpl_d2.evaluation.box_agreement import OBJECTS
from wpl_d2.evaluation.statistics import CONFIDENCES
from wpl_d2.utils.files import replace_file

from .study import Row
from .table import Judged, Table, auroc_scores

_PARTS = {"all labels": "", "foreground": f"-{OBJECTS}"}


def draw_pictures(table: Table, begin: Path) -> dict[str, Path]:
    """Draw what there are figures of, as PNG files.

    Args:
        table: what is known.
        begin: what their paths begin with, such as FOLDER/study_.

    Returns:
        the files by title.
    """
    drawn = {
        f"Difference to the row compared with, on {table.study.lists.dev}": ("pairs", _pairs(table)),
        "Calibration after the last step": ("calibration", _calibration(table)),
        "AUROC among sure pixels as training goes on": ("auroc", _auroc(table)),
    }
    files = {}
    for title, (name, figure) in drawn.items():
        if figure is not None:
            files[title] = begin.with_name(f"{begin.name}{name}.png")
            replace_file(
                files[title], lambda unfinished, figure=figure: figure.savefig(unfinished, format="png", dpi=120)
            )
    return files


def _pairs(table: Table) -> Figure | None:
    """A dot for each draw, and the mean of each row."""
    rows = {row.name: table.pairs(row, "dev") for row in table.study.rows.values()}
    shown = [(name, pairs) for name, pairs in rows.items() if pairs]
    if not shown:
        return None
    figure = Figure(figsize=(7, 1.5 + 0.25 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="gray", linewidth=0.8)
    for draw in table.study.draws:
        places = [(pairs[draw], place) for place, (_, pairs) in enumerate(shown) if draw in pairs]
        if places:
            axes.plot(*zip(*places, strict=True), "o", markersize=4, label=draw)
    means = [Spread.of(pairs.values()).mean for _, pairs in shown]
    axes.plot(means, range(len(shown)), "k|", markersize=12, label="mean")
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.invert_yaxis()
    axes.set_xlabel("mIoU, paired difference")
    axes.legend(fontsize="small")
    return figure


def _calibration(table: Table) -> Figure | None:
    """Accuracy over confidence of each row's labels."""
    rows = {row.name: table.judged(row) for row in table.study.rows.values()}
    shown = {name: judged for name, judged in rows.items() if judged}
    if not shown:
        return None
    figure = Figure(figsize=(10, 5), layout="constrained")
    for axes, (title, part) in zip(figure.subplots(1, 2), _PARTS.items(), strict=True):
        axes.plot([0, 100], [0, 100], color="gray", linewidth=0.8)
        for index, (name, judged) in enumerate(shown.items()):
            curve = [
                (judged[f"calibration-confidence{part}@{low:g}"], judged[f"calibration-accuracy{part}@{low:g}"])
                for low in CONFIDENCES
            ]
            points = [(sure.mean, right.mean) for sure, right in curve if sure.count and right.count]
            if points:
                axes.plot(*zip(*points, strict=True), **_look(index), label=name)
        axes.set(title=title, xlabel="confidence, %", ylabel="right, %")
    _add_legend(figure, shown)
    return figure


def _auroc(table: Table) -> Figure | None:
    """Of the rows that others are compared with, a line for each score."""
    names = dict.fromkeys(row.plain for row in table.study.rows.values())
    rows = [row for row in table.study.rows.values() if row.name in names]
    shown = [(row, judged) for row in rows if (judged := table.judged(row))]
    if not shown:
        return None
    # One look for a score in all panels: rows that were judged by other commits may lack some.
    scores = auroc_scores({row.name: judged for row, judged in shown})
    figure = Figure(figsize=(10, 4 * len(shown)), layout="constrained")
    grid = figure.subplots(len(shown), 2, squeeze=False)
    for (row, _), line in zip(shown, grid, strict=True):
        by_step = dict(_by_step(table, row))
        for axes, (title, part) in zip(line, _PARTS.items(), strict=True):
            for index, score in enumerate(scores):
                known = {step: judged.get(f"auroc-{score}-sure{part}") for step, judged in by_step.items()}
                points = [(step, spread.mean) for step, spread in known.items() if spread and spread.count]
                if points:
                    axes.plot(*zip(*points, strict=True), **_look(index), label=score)
            axes.set(title=f"{row.name}: {title}", xlabel="step", ylabel="AUROC")
    _add_legend(figure, scores)
    return figure


def _by_step(table: Table, row: Row) -> Iterator[tuple[int, Judged]]:
    steps = table.study.judge.steps if table.study.judge else ()
    last = max(int(run.steps) for run in table.runs(row).values())
    for step in (*steps, last):
        if judged := table.judged(row, step):
            yield step, judged


def _add_legend(figure: Figure, names: Iterable[str]) -> None:
    """One legend for all panels, in the order of the names; a panel need not have all of them."""
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    drawn = [name for name in names if name in lines]
    figure.legend([lines[name] for name in drawn], drawn, loc="outside right upper", fontsize="small")


def _look(index: int) -> Mapping[str, Any]:
    """How the line of a row or a score looks: colors repeat after ten, with another line."""
    return {"color": f"C{index % 10}", "linestyle": ("-", "--", ":")[index // 10 % 3], "marker": ".", "linewidth": 1}
