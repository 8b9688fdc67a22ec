import os
import subprocess
import sys
from pathlib import Path

import pytest

# Projects are not installed: what a project's tests import lies in its folder.
sys.path[:0] = [str(path) for path in (Path(__file__).resolve().parents[2] / "projects").iterdir() if path.is_dir()]


@pytest.fixture
def paper_tables(monkeypatch, capsys):
    """Calls projects/PaperTables' tool; what it would become is run beside it."""
    import paper_tables

    def become(python, words):
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["paper_tables.py", *map(str, words)])
        args = paper_tables.parse_args()
        args.call(args)
        return capsys.readouterr().out

    monkeypatch.setattr(os, "execv", become)
    return call


@pytest.fixture
def weight_study(monkeypatch, capsys):
    """Calls projects/WeightStudy's tool."""
    import weight_study

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["weight_study.py", *map(str, words)])
        args = weight_study.parse_args()
        args.call(args)
        return capsys.readouterr().out

    return call
