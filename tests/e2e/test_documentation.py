"""What the documentation names is there, and what it shows is what its commands print."""

import re
import shlex
from pathlib import Path

import pytest

from wpl_d2 import get_cfg
from wpl_d2.cli import run
from wpl_d2.config.config import leaf_keys

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("projects/*/README.md")]
PAGES = [page for page in PAGES if page.name != "config.md"]  # what the build of the documentation writes
TABLE = re.compile(r"```sh\n(tools/summarize_runs\.py results/runs\.csv[^`]*)```\n\n((?:\|.*\n)+)")
FORMER = {"SOLVER.PICTURE_PERIOD"}
"""Keys that are named as what they were, in the changelog."""
TABLES = [
    pytest.param(command, table, id=f"{page.stem}-{number}")
    for page in sorted((ROOT / "docs" / "measured").glob("*.md"))
    for number, (command, table) in enumerate(TABLE.findall(page.read_text()))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_keys_that_a_page_names_exist(page):
    text = page.read_text()
    files = re.findall(r"\b(?:configs|tools|projects|docs/examples)/[\w/.-]+\.(?:py|yaml)\b", text)
    assert [name for name in files if not (ROOT / name).is_file()] == []
    keys = re.findall(r"\b(?:DATASETS|INPUT|MODEL|FRAMEWORK|WEIGHTING|RPPI|SOLVER|TEST)\.[A-Z0-9_.]+\b", text)
    known = set(leaf_keys(get_cfg()))
    assert [key for key in keys if key not in known and key not in FORMER] == []
    assert "--8 <" not in text  # an included file that a formatter took for code


def test_every_table_of_runs_is_found():
    written = sum(
        page.read_text().count("tools/summarize_runs.py results/") for page in ROOT.glob("docs/measured/*.md")
    )
    assert len(TABLES) == written > 0


@pytest.mark.parametrize(("command", "table"), TABLES)
def test_a_table_is_what_its_command_prints(monkeypatch, capsys, command, table):
    monkeypatch.chdir(ROOT)
    assert run("summarize", shlex.split(command.replace("\\\n", " "))[1:]) == 0
    assert capsys.readouterr().out == table
