import shutil

import pytest
from helpers import make_tree
from report_helpers import SUPERVISED, train

from wpl_d2.engine import Trainer


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The folders of short trainings: `supervised_s1`, and `teacher_s1`, whose pseudo-labels were judged."""
    folder = tmp_path_factory.mktemp("reported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WPL_D2_CACHE", str(folder / "cache"))
        patch.setattr(Trainer, "LOG_PERIOD", 2)
        tree = make_tree(folder)
        judged = ["TEST.PSEUDO_LABELS", (f"{tree.name}_unlabeled",), "SEED", 1]
        return {
            "supervised": train(tree, folder / "supervised_s1", *SUPERVISED, "SEED", 1),
            "teacher": train(tree, folder / "teacher_s1", *judged),
        }


@pytest.fixture
def run(runs, tmp_path):
    """A copy of the second one, to change."""
    return shutil.copytree(runs["teacher"], tmp_path / "teacher_s1", ignore=shutil.ignore_patterns("*.pth"))
