import os
from pathlib import Path

# Before torch is imported, and for every process that a test starts: pytest-xdist already keeps the cores busy, and
# threads that wait for a core which they share with others spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from helpers import make_tree

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data sets beside the checkout, for the tests that need them."""
    if not (SHARED / "camvid").is_dir():
        pytest.skip(f"{SHARED} with the CamVid and COCO test data is not there")
    return SHARED


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """3 labeled, 5 unlabeled and 2 validation images of 60x50 (width x height), with masks for all."""
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))
    return make_tree(tmp_path)
