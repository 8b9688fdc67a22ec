"""What the documentation shows is what its commands print."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = re.compile(r"```sh\n(tools/summarize_runs\.py results/runs\.csv[^`]*)```\n\n((?:\|.*\n)+)")
TABLES = [
    pytest.param(command, table, id=f"{page.stem}-{number}")
    for page in sorted((ROOT / "docs" / "measured").glob("*.md"))
    for number, (command, table) in enumerate(TABLE.findall(page.read_text()))
]


def test_every_table_of_runs_is_found():
    written = sum(
        page.read_text().count("tools/summarize_runs.py results/") for page in ROOT.glob("docs/measured/*.md")
    )
    assert len(TABLES) == written > 0


@pytest.mark.parametrize(("command", "table"), TABLES)
def test_a_table_is_what_its_command_prints(monkeypatch, capsys, command, table):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", shlex.split(command.replace("\\\n", " ")))
    runpy.run_path(str(ROOT / "tools" / "summarize_runs.py"), run_name="__main__")
    assert capsys.readouterr().out == table
