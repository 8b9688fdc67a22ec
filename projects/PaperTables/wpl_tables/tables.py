"""The paper's tables, and where each of their figures comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from wpl_d2.utils.errors import InputError, check_name, suggest

from .recipes import REPOSITORY, Recipe

_KINDS = ("table", "figure", "supp", "beyond")
_PUBLISHED = Path(__file__).resolve().parents[1] / "published"


@dataclass(frozen=True)
class Cell:
    """A figure of a table.

    Attributes:
        name: such as "table1/voc_92/r101/unimatch_wpl".
        published: in percent; None where the paper has none.
        run: name of the `Recipe` that gives it, "" where this project cannot.
        metric: what to take from the run's result.
        why_not: why there is no run.
        note: what is to be known about it or its row.
    """

    name: str
    published: float | None
    run: str
    metric: str
    why_not: str
    note: str

    @property
    def published_text(self) -> str:
        """The published figure; "" where there is none."""
        return "" if self.published is None else str(self.published)


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        name: such as "table1", "figure7", "supp_table2" or, of later figures than the paper's, "beyond_voc".
        title: what is measured on what.
        columns: their names.
        rows: "BLOCK/ROW" to its cells, one a column.
        unpublished: whether cells without a published figure have a run too.
    """

    name: str
    title: str
    columns: list[str]
    rows: dict[str, list[Cell]]
    unpublished: bool

    @property
    def cells(self) -> list[Cell]:
        """Those that are published or, in a table that says so, not."""
        return [cell for row in self.rows.values() for cell in row if self.unpublished or cell.published is not None]


@cache
def load_tables() -> dict[str, Table]:
    """All tables by name, in the paper's order, those of later figures behind."""
    files = {file.stem: file for kind in _KINDS for file in sorted(_PUBLISHED.glob(f"{kind}*.yaml"))}
    return {name: _read_table(file) for name, file in files.items()}


def select_tables(name: str | None) -> list[Table]:
    """One table, or all of them.

    Args:
        name: None for all.

    Raises:
        InputError: there is none of that name.
    """
    tables = load_tables()
    return list(tables.values()) if name is None else [tables[check_name("TABLE", name, tables)]]


def find_cells(name: str) -> list[Cell]:
    """The figure of a name, or all that a run of that name gives.

    Raises:
        InputError: there is none.
    """
    cells = [cell for table in load_tables().values() for cell in table.cells]
    if found := [cell for cell in cells if name in (cell.name, cell.run)]:
        return found
    known = {word for cell in cells for word in (cell.name, cell.run) if word}
    raise InputError(f"{name}: no figure and no run; {suggest(name, known, otherwise='see `list`')}")


def _read_table(file: Path) -> Table:
    raw = yaml.safe_load(file.read_text())
    rows = {
        f"{block}/{row}": [
            _cell(file.stem, raw, {"block": block, "row": row, "column": column}, value)
            for column, value in zip(raw["columns"], values, strict=True)
        ]
        for block, block_rows in raw["blocks"].items()
        for row, values in block_rows.items()
    }
    return Table(file.stem, raw["title"], raw["columns"], rows, raw.get("unpublished", False))


def _cell(table: str, raw: Mapping[str, Any], place: Mapping[str, str], value: float | None) -> Cell:
    row = place["row"]
    # Names of classes have blanks and slashes.
    own = {key: re.sub(r"[ /]", "_", part) for key, part in place.items()}
    # The lists that the figure was measured on, where these are not the column's.
    lists = raw.get("lists", {}).get(row, {}).get(place["column"], own["column"])
    run = raw.get("runs", {}).get(row, raw["run"]).format(**(own | {"column": lists}))
    why_not = raw.get("published_only", {}).get(row, "") or _no_preset(run)
    notes, of_row = raw.get("notes", {}), f"{place['block']}/{row}"
    note = notes.get(f"{of_row}/{place['column']}", notes.get(of_row, ""))
    name = f"{table}/{raw['cell'].format(**own)}"
    return Cell(name, value, "" if why_not else run, raw["metric"].format(**place), why_not, note)


@cache
def _no_preset(run: str) -> str:
    """Why there is no run of that name; "" if there is one."""
    config = Recipe.from_name(run).config
    return "" if config.is_file() else f"there is no {config.relative_to(REPOSITORY)}"
