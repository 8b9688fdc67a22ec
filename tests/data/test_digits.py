import hashlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from wpl_d2.data.datasets import digits as module

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    module.digits(folder)
    return folder


def _digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _ids(root, name):
    return (root / "splits" / f"{name}.txt").read_text().split()


def _mask(root, scene_id):
    return np.asarray(Image.open(root / "masks" / f"{scene_id}.png"))


def test_files_are_the_same_byte_for_byte(root, tmp_path, monkeypatch):
    for name, count in (("LABELED", 5), ("UNLABELED", 5), ("VALIDATION", 5)):
        monkeypatch.setattr(module, name, count)
    module.digits(tmp_path)
    again, first = _digest(tmp_path), _digest(root)
    scenes = [name for name in again if not name.startswith("splits")]
    assert len(scenes) == 30
    assert {name: again[name] for name in scenes} == {name: first[name] for name in scenes}


def test_layout_fits_its_description(root):
    description = yaml.safe_load(Path("configs/datasets/digits.yaml").read_text())
    counts = {"labeled": module.LABELED, "unlabeled": module.UNLABELED, "val": module.VALIDATION}
    everything = []
    for name, path in description["lists"].items():
        ids = (root / path).read_text().split()
        assert len(ids) == counts[name]
        everything += ids
    assert len(set(everything)) == len(everything)
    for scene_id in everything:
        image = Image.open(root / description["image"].format(id=scene_id))
        assert image.size == (module.SIZE, module.SIZE) and image.mode == "RGB"
        mask = _mask(root, scene_id)
        assert mask.shape == (module.SIZE, module.SIZE) and mask.dtype == np.uint8
        assert mask.max() < len(description["classes"])


def test_every_class_is_labeled_and_most_digits_are_big(root):
    masks = np.stack([_mask(root, scene_id) for scene_id in _ids(root, "labeled")])
    areas = np.stack([np.bincount(mask.ravel(), minlength=11) for mask in masks])[:, 1:]
    assert (areas > 0).any(axis=0).all()
    assert (areas[areas > 0] >= 90).mean() > 0.9
    assert 0.6 < (masks == 0).mean() < 0.95


def test_sides_share_no_digit_and_no_column():
    train, val = module._load_sources()
    train_strokes = {stroke.tobytes() for stroke in train.strokes}
    assert not train_strokes & {stroke.tobytes() for stroke in val.strokes}
    assert len(train.strokes) + len(val.strokes) == 1797
    for left, right in zip(train.photos, val.photos, strict=True):
        assert left.shape[1] + right.shape[1] == 640


def test_drawn_digit_keeps_its_class_shape():
    train, _ = module._load_sources()
    rng = np.random.default_rng(0)
    ones = train.strokes[train.labels == 1][:20]
    zeros = train.strokes[train.labels == 0][:20]
    assert all(_holes(module._draw(stroke, rng)) == 0 for stroke in ones)
    assert sum(_holes(module._draw(stroke, rng)) == 1 for stroke in zeros) >= 15


def _holes(cover):
    from scipy.ndimage import label

    return label(cover <= 0.5)[1] - 1
