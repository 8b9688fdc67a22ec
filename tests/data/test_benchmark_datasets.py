"""The benchmarks' descriptions, and the whole path from unpacked archives to samples and evaluators."""

import json
import os
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from detectron2.utils.visualizer import Visualizer
from PIL import Image

from wpl_d2 import get_cfg
from wpl_d2.data import (
    EvalDataset,
    EvalMapper,
    LabeledMapper,
    check_training_data,
    load_description,
    read_mask,
    setup_datasets,
)
from wpl_d2.data.inspection.known_sets import find_known_set
from wpl_d2.data.preparation import BENCHMARKS, published_lists
from wpl_d2.evaluation.evaluator import build_detectron2_evaluator

ROOT = Path(__file__).resolve().parents[2]


def describe(name, root=None):
    return load_description(BENCHMARKS[name].description, root)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_descriptions_name_every_published_split(name, tmp_path):
    description = describe(name, tmp_path)
    assert set(published_lists(name)) - {"test_unlabeled"} == set(description.lists)
    assert len(description.colors) == len(set(description.colors)) == len(description.classes)
    with pytest.raises(
        ValueError, match=r"splits/1_\d+_labeled\.txt: .* tools/prepare_dataset\.py imports published lists"
    ):
        description.records(next(key for key in description.lists if key.startswith("1_") and "unl" not in key))


def test_classes_and_objects_are_those_of_the_field():
    voc, cityscapes, coco, ade20k, animals, rooms = (describe(name) for name in BENCHMARKS)
    assert voc.object_ids == tuple(range(1, 21))
    assert sorted(cityscapes.object_ids) == [6, 7, *range(11, 19)]
    assert {c["name"]: (c["id"], tuple(c["color"])) for c in CITYSCAPES_CATEGORIES} == dict(
        zip(cityscapes.classes, zip(cityscapes.dataset_ids, cityscapes.colors, strict=True), strict=True)
    )
    assert set(animals.classes) < set(voc.classes)
    for name, color in zip(animals.classes, animals.colors, strict=True):
        assert color == voc.colors[voc.classes.index(name)]
    assert animals.object_ids == tuple(range(1, 7))
    assert (len(rooms.classes), rooms.classes) == (13, tuple(sorted(rooms.classes)))
    detectron2 = MetadataCatalog.get("coco_2017_val")
    assert list(coco.classes) == ["void", *detectron2.thing_classes]
    assert coco.object_ids == tuple(range(1, 81))
    assert coco.dataset_ids == (0, *detectron2.thing_dataset_id_to_contiguous_id)
    assert list(coco.colors) == [(0, 0, 0), *map(tuple, detectron2.thing_colors)]
    assert list(ade20k.classes) == find_known_set("ade20k").values["classes"]
    assert (len(ade20k.object_ids), ade20k.dataset_ids) == (100, tuple(range(1, 151)))


def test_lists_of_a_pattern_are_those_that_are_there_and_those_that_are_known(tree):
    tree.describe(lists={"{split}_labeled": "lists/{split}_labeled.txt", "val": "val.txt"}, splits=["1_8"])
    (tree.root / "lists").mkdir()
    for name in ("b_labeled", "a_labeled", "a_unlabeled"):
        (tree.root / f"lists/{name}.txt").write_text("labeled0\n")
    (tree.root / "lists/._a_labeled.txt").write_bytes(b"\0\5\x16\7")  # of macOS
    expected = {f"{name}_labeled": f"lists/{name}_labeled.txt" for name in ("1_8", "a", "b")}
    (tree.root / "val.txt").unlink()
    description = load_description(tree.yaml)
    assert description.lists == {**expected, "val": "val.txt"}
    assert description.present() == ["val", "a_labeled", "b_labeled"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lists": {"{split}_labeled": "a.txt"}}, "has {split} on one side"),
        ({"lists": {"a": "{split}.txt"}}, "has {split} on one side"),
        ({"splits": [116]}, "'splits': 116 is not text"),
        ({"dataset_ids": [1, 2]}, "'dataset_ids' has 2 ids; give another one to each of 3"),
        ({"dataset_ids": [1, 2, 2]}, "'dataset_ids' has 2 ids"),
        ({"dataset_ids": "7"}, "'dataset_ids': '7' is not a list"),
    ],
)
def test_wrong_keys_are_refused_in_words(tree, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        load_description(tree.describe(**changes))
    assert str(error.value).startswith(f"{tree.yaml}: ")


def save(file, array):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(file)


@pytest.fixture
def cityscapes(tmp_path):
    """A made-up Cityscapes of 8 training and 2 validation images, 12x20, as its archives unpack."""
    rng = np.random.default_rng(0)
    cities = {"train": ("ulm", "jena"), "val": ("lindau",)}
    for part, names in cities.items():
        for city in names:
            for i in range(8 // len(names) if part == "train" else 2):
                stem = f"{part}/{city}/{city}_{i:06d}_000019"
                save(tmp_path / f"cityscapes/leftImg8bit/{stem}_leftImg8bit.png", rng.integers(0, 256, (12, 20, 3)))
                ids = rng.choice([0, 7, 8, 11, 24, 26, 33], (12, 20))
                save(tmp_path / f"cityscapes/gtFine/{stem}_gtFine_labelIds.png", ids)
    return tmp_path / "cityscapes"


def run_tool(*arguments):
    """Run the tool in this process; returns its exit status."""
    argv, sys.argv = sys.argv, ["prepare_dataset.py", *map(str, arguments)]
    try:
        runpy.run_path(str(ROOT / "tools/prepare_dataset.py"), run_name="__main__")
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = argv
    return 0


@pytest.fixture
def registered(cityscapes, tmp_path):
    """The made-up Cityscapes, prepared by the tool and registered under a name of its own."""
    # 1: this is less than is published.
    assert run_tool("cityscapes", "--root", cityscapes, "--fraction", "1/4", "--workers", 2) == 1
    description = yaml.safe_load((ROOT / BENCHMARKS["cityscapes"].description).read_text())
    file = tmp_path / "cityscapes.yaml"
    file.write_text(yaml.safe_dump({**description, "name": tmp_path.name, "root": str(cityscapes)}))
    cfg = get_cfg()
    cfg.DATASETS.DESCRIPTION = str(file)
    cfg.DATASETS.TRAIN = (f"{tmp_path.name}_1_4_seed0_labeled",)
    cfg.DATASETS.UNLABELED = (f"{tmp_path.name}_1_4_seed0_unlabeled",)
    cfg.DATASETS.TEST = (f"{tmp_path.name}_val",)
    cfg.INPUT.CROP_SIZE = (12, 20)
    setup_datasets(cfg)
    return cfg


def test_from_the_archives_to_a_sample(registered):
    check_training_data(registered)
    assert [
        len(DatasetCatalog.get(name[0])) for name in (registered.DATASETS.TRAIN, registered.DATASETS.UNLABELED)
    ] == [2, 6]
    sample = LabeledMapper(registered)(DatasetCatalog.get(registered.DATASETS.TRAIN[0])[0])
    assert sample["image"].shape == (3, 12, 20)
    assert set(sample["sem_seg"].unique().tolist()) <= {0, 1, 2, 11, 13, 18, 255}


def test_detectron2s_evaluator_and_visualizer_understand_the_metadata(registered, tmp_path):
    name = registered.DATASETS.TEST[0]
    evaluator = build_detectron2_evaluator(EvalDataset(name=name), tmp_path / "results")
    evaluator.reset()
    record = DatasetCatalog.get(name)[0]
    mask = read_mask(record["sem_seg_file_name"])
    for other in DatasetCatalog.get(name):
        truth = torch.from_numpy(read_mask(other["sem_seg_file_name"]).astype(np.int64))
        scores = torch.nn.functional.one_hot(truth.masked_fill(truth == 255, 0), 19).permute(2, 0, 1)
        evaluator.process([EvalMapper()(other)], [{"sem_seg": scores.float()}])
    assert evaluator.evaluate()["sem_seg"]["mIoU"] == 100
    written = json.loads((tmp_path / "results/sem_seg_predictions.json").read_text())
    assert {entry["category_id"] for entry in written} == {7, 8, 11, 24, 26, 33}
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_dataset_id_to_contiguous_id[24] == metadata.thing_classes.index("person")
    drawn = Visualizer(np.zeros((12, 20, 3), dtype=np.uint8), metadata).draw_sem_seg(mask).get_image()
    assert drawn.max() > 0


def test_the_tool_reports_and_fails_on_what_is_missing(cityscapes, capsys):
    os.rename(cityscapes / "gtFine/val/lindau", cityscapes / "away")
    assert run_tool("cityscapes", "--root", cityscapes, "--workers", 1) == 1
    printed = capsys.readouterr().out
    (row,) = [line.split() for line in printed.splitlines() if line.startswith("cityscapes_train")]
    assert row == ["cityscapes_train", "8", "2975", "differs", "8", "0"]
    assert "problem: " in printed and "lindau_000000_000019_gtFine_labelIds.png: cannot be read" in printed
    assert f"note: configs/datasets/cityscapes.yaml looks in {ROOT}" in printed
    assert "has 8 of the 2975 published images of 'train'" in printed
    with (cityscapes / "splits/train.txt").open("a") as file:
        file.write("train/./._ulm_000000_000019\n")
    assert run_tool("cityscapes", "--root", cityscapes, "--fraction", "7/8", "--workers", 1) == 1
    assert "mended: " in capsys.readouterr().out
    shutil.rmtree(cityscapes / "leftImg8bit/train/ulm")
    assert run_tool("cityscapes", "--root", cityscapes, "--fraction", "7/8", "--seed", 1, "--workers", 1) == 1
    printed = capsys.readouterr().out
    assert "cityscapes_train" in printed and "train.txt: names 4 of 8 images that are not there" in printed
    assert "problem: --fraction: 7/8 of 8 images is 7, but 4 are there with masks" in printed
    assert run_tool("cityscapes", "--root", cityscapes, "--splits", cityscapes / "nowhere") == 2
    assert run_tool("cityscapes", "--root", cityscapes, "--balanced") == 2
