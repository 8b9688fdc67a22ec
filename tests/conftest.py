from pathlib import Path

import numpy as np
import pytest
from helpers import Tree
from PIL import Image

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
    made = Tree(tmp_path / "set", tmp_path.name)
    (made.root / "images").mkdir(parents=True)
    (made.root / "masks").mkdir()
    rng = np.random.default_rng(0)
    for stem, count in (("labeled", 3), ("unlabeled", 5), ("val", 2)):
        names = [f"{stem}{i}" for i in range(count)]
        (made.root / f"{stem}.txt").write_text("\n".join(names))
        for i, name in enumerate(names):
            Image.fromarray(rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(made.image(name))
            mask = np.zeros((50, 60), dtype=np.uint8)
            mask[5 + i : 25, 8:30] = 1
            mask[30:45, 35 : 50 + i] = 2
            mask[:3] = 255
            made.write_mask(name, mask)
    made.describe()
    return made
