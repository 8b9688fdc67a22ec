"""Measured beside published figures, in the paper's layout or as one row for each figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path

from tabulate import tabulate

from wpl_d2.engine import Spread

from .results import Measured, measure
from .tables import Table

KINDS = ("best", "last")


def table_text(table: Table, root: Path) -> str:
    """A table in Markdown: each row as published, then what its runs gave: mean, spread and number of seeds.

    Args:
        table: of the paper.
        root: of all runs.
    """
    lines: list[list[str]] = []
    remarks: dict[str, None] = {}
    for name, cells in table.rows.items():
        measured = [measure(cell, root) for cell in cells]
        lines.append([name, "published", *(cell.published_text for cell in cells)])
        if cells[0].run:
            for kind in KINDS:
                lines.append(["", kind, *(str(Spread.of(getattr(found, kind).values())) for found in measured)])
        remarks |= dict.fromkeys(f"{name}: {text}" for cell in cells for text in (cell.why_not, cell.note) if text)
        remarks |= dict.fromkeys(f"{path}: not finished, left out" for found in measured for path in found.unfinished)
    body = tabulate(lines, ["", "", *table.columns], tablefmt="pipe", disable_numparse=True)
    parts = [f"## {table.name}: {table.title}", body, "\n".join(f"- {remark}" for remark in remarks)]
    return "\n\n".join(part for part in parts if part)


def tables_csv(tables: Iterable[Table], root: Path) -> str:
    """All figures, a row for each.

    Args:
        tables: of the paper.
        root: of all runs.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    figures = [f"{kind}_{figure}" for kind in KINDS for figure in ("mean", "spread", "seeds")]
    writer.writerow(["name", "published", "run", "metric", *figures])
    for cell in (cell for table in tables for cell in table.cells):
        writer.writerow([cell.name, cell.published, cell.run, cell.metric, *_numbers(measure(cell, root))])
    return file.getvalue()


def _numbers(measured: Measured) -> list[str]:
    numbers = []
    for values in (measured.best, measured.last):
        spread = Spread.of(values.values())
        numbers += ["" if math.isnan(figure) else f"{figure:.4f}" for figure in (spread.mean, spread.deviation)]
        numbers.append(str(spread.count) if values else "")
    return numbers


def list_text(tables: Iterable[Table]) -> str:
    """Every figure with its name, and the run that gives it or the reason why there is none."""
    rows = [
        [cell.name, cell.published_text, cell.run or f"published only: {cell.why_not}"]
        for table in tables
        for cell in table.cells
    ]
    return tabulate(rows, ["name", "published", "run"], disable_numparse=True)
