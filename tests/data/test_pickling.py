"""What is given to loaders' workers, which get it by pickling where processes are not forked."""

import pickle
from collections import deque

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Instances
from helpers import AUGSEG, write_detection_cache

from wpl_d2.data import EvalMapper
from wpl_d2.data.loader import build_partner_loader, build_test_loader, labeled_dataset, unlabeled_dataset
from wpl_d2.structures import Detections

BOXES = ["MODEL.DETECTOR.MODE", "shared"]
KINDS = {
    "plain": [],
    "boxes": BOXES,
    "copy_paste": ["INPUT.PASTE.PROB", 1.0, *BOXES],
    "intensity": AUGSEG,
    "no_strong_view": ["INPUT.STRONG.VIEWS", 0],
    "scales": ["INPUT.SCALE_BALANCED", True, "INPUT.SCALE_BASE", 90, "INPUT.RANDOM_FLIP", "none"],
    "cached_detections": ["MODEL.DETECTOR.MODE", "cached"],
}


@pytest.fixture
def cache(tree):
    """A file with a box in every image."""
    tree.cfg()
    keys = [record["image_id"] for record in DatasetCatalog.get(f"{tree.name}_unlabeled")]
    return [
        "MODEL.DETECTOR.CACHE",
        write_detection_cache(tree.root / "boxes.npz", keys, [[0, 0, 40, 45]], [0.9], [1]),
    ]


def plain(value):
    """Samples as what `==` compares."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Detections):
        return plain(value._asdict())
    if isinstance(value, Instances):
        return plain({key: getattr(item, "tensor", item) for key, item in value.get_fields().items()})
    return value


def assert_survives(dataset, key):
    copy = pickle.loads(pickle.dumps(dataset))
    assert plain(copy[key]) == plain(dataset[key])
    return dataset[key]


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_training(tree, cache, kind):
    cfg = tree.cfg(*KINDS[kind], *cache, "MODEL.DEVICE", "cpu")
    labeled = assert_survives(labeled_dataset(cfg), 4)
    assert ("paste" in labeled, "instances" in labeled) == (kind == "copy_paste", kind in ("boxes", "copy_paste"))
    for dataset, key in (
        (unlabeled_dataset(cfg), 7),
        (build_partner_loader(cfg, deque([[2]])).dataset, (5, 2)),
    ):
        unlabeled = assert_survives(dataset, key)
        assert ("detections" in unlabeled) == (kind == "cached_detections")
        assert len(unlabeled["strong"]) == (kind != "no_strong_view")


def test_data_of_evaluation(tree):
    tree.cfg()
    name = f"{tree.name}_val"
    assert_survives(build_test_loader(DatasetCatalog.get(name), EvalMapper(), 0).dataset, 1)
    readable = build_test_loader(DatasetCatalog.get(name), EvalMapper(lenient=True), 0)
    assert_survives(readable.dataset, 0)
