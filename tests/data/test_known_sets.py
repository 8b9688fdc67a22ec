"""`wpl init --format`: made-up folders in the layouts in which public data sets are published."""

import numpy as np
import pytest
from PIL import Image

from wpl_d2.cli import main
from wpl_d2.data.dataset_report import report_dataset
from wpl_d2.data.datasets import load_description
from wpl_d2.data.image_io import read_record_mask
from wpl_d2.data.inspection.known_sets import known_sets

SIZE = 48


def after_zero(mask):
    return np.where(mask == 255, 0, mask + 1).astype(np.uint8)


def colored(*colors):
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    return lambda mask: table[mask]


DEEPGLOBE = colored((0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255))
POTSDAM = colored((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0))
# Image and mask, how the mask is stored, whether it may have pixels without a class, and names of the first and last.
SETS = {
    "ade20k": (
        "ADEChallengeData2016/images/{split}ing/ADE_{name}.jpg",
        "ADEChallengeData2016/annotations/{split}ing/ADE_{name}.png",
        *(after_zero, True, ("wall", "flag"), 150),
    ),
    "camvid": (
        "CamVid/{split}/{name}.png",
        "CamVid/{split}annot/{name}.png",
        *(lambda mask: np.where(mask == 255, 11, mask).astype(np.uint8), True, ("sky", "bicyclist"), 11),
    ),
    "deepglobe": (
        "{split}/{name}_sat.jpg",
        "{split}/{name}_mask.png",
        *(DEEPGLOBE, True, ("urban", "barren"), 6),
    ),
    "loveda": (
        "Train/Rural/images_png/{name}.png",
        "Train/Rural/masks_png/{name}.png",
        *(after_zero, True, ("background", "agriculture"), 7),
    ),
    "pascal-context": (
        "VOC2010/JPEGImages/{name}.jpg",
        "VOC2010/SegmentationClassContext/{name}.png",
        *(lambda mask: mask, False, ("background", "wood"), 60),
    ),
    "potsdam": (
        "2_Ortho_RGB/top_potsdam_2_1{i}_RGB.tif",
        "5_Labels_all/top_potsdam_2_1{i}_label.tif",
        *(POTSDAM, False, ("impervious surface", "clutter"), 6),
    ),
}


@pytest.mark.parametrize("name", known_sets())
def test_a_public_set_is_described_by_its_name(name, tmp_path, monkeypatch):
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))
    image, mask, store, has_void, ends, count = SETS[name]
    root, truth = tmp_path / "set", {}
    for i in range(6):
        stem = f"{chr(97 + 7 * i % 26)}{chr(107 + i)}"
        files = [root / path.format(split="train", name=stem, i=i) for path in (image, mask)]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(i)
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(files[0])
        labels = rng.integers(0, min(count, 6), (4, 4)).astype(np.uint8).repeat(12, 0).repeat(12, 1)
        labels[:3] = 255 if has_void else 0
        truth[str(files[0])] = labels
        Image.fromarray(store(labels)).save(files[1])
    assert main(["init", str(root), "--format", name]) == 0
    description = load_description(root / "set.yaml")
    assert (description.classes[0], description.classes[-1], len(description.classes)) == (*ends, count)
    report = report_dataset(description, 10)
    assert [problem for problem in report.problems if "no pixel is labeled" not in problem] == []
    records = [record for name in ("labeled", "val") for record in report.lists[name]]
    assert len(records) == 6
    for record in records:
        assert (read_record_mask(record) == truth[record["file_name"]]).all()
