"""Packages import those below them alone, so that there is no circle and a reader knows where to look."""

import ast
from pathlib import Path

import wpl_d2

ROOT = Path(wpl_d2.__file__).parent
ORDER = [
    *("utils", "structures", "weighting", "losses", "config", "data", "modeling", "frameworks", "checkpoint"),
    *("visualization", "inference", "evaluation", "export", "engine", "benchmark", "report", "cli"),
]


def packages_imported(file):
    """The parts of the package that a module imports when it is read itself."""
    folders = file.relative_to(ROOT).parts[:-1]
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            above = folders[: len(folders) - node.level + 1]
            yield (*above, *(node.module or "").split("."))[0]


def test_imports_run_one_way():
    parts = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts == {*ORDER, "__init__"}
    wrong = set()
    for file in ROOT.glob("**/*.py"):
        own = Path(file.relative_to(ROOT).parts[0]).stem
        above = [] if own == "__init__" else ORDER[ORDER.index(own) + 1 :]
        wrong |= {f"{file.relative_to(ROOT)} imports {other}" for other in packages_imported(file) if other in above}
    assert wrong == set()
