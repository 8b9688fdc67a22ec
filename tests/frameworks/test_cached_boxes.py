"""The mean teacher with the boxes of a file in place of a detector."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils.events import EventStorage
from helpers import SMALL, SMALL_DETECTOR, write_detection_cache

from wpl_d2 import build_framework
from wpl_d2.data import EvalDataset, build_train_loader
from wpl_d2.evaluation import judge_pseudo_labels
from wpl_d2.structures import class_boxes
from wpl_d2.weighting import reliable_mask

CACHED = [*SMALL_DETECTOR, "MODEL.DETECTOR.MODE", "cached"]


@pytest.fixture
def cache(tree):
    """In every image a box of each class, of which the one of "ball" has a low score."""
    tree.cfg()
    records = [*DatasetCatalog.get(f"{tree.name}_unlabeled"), *DatasetCatalog.get(f"{tree.name}_val")]
    keys = [record["image_id"] for record in records]
    boxes = [[0, 0, 40, 45], [5, 5, 30, 30], [10, 10, 60, 50]]
    path = write_detection_cache(tree.root / "boxes.npz", keys, boxes, [0.9, 0.8, 0.3], [0, 1, 2])
    return [*CACHED, "MODEL.DETECTOR.CACHE", path]


def make(tree, *opts):
    cfg = tree.cfg(*SMALL, *opts)
    torch.manual_seed(0)
    return build_framework(cfg), next(build_train_loader(cfg))


def pseudo_labels_of(framework, batch):
    items = batch["unlabeled"]
    return framework.make_pseudo_labels(items, framework.teacher_forward(items))


def reliable(framework, batch):
    return pseudo_labels_of(framework, batch).reliable


def expected(framework, batch, score):
    pseudo = pseudo_labels_of(framework, batch)
    pairs = class_boxes([item["detections"] for item in batch["unlabeled"]], score)
    return reliable_mask(pseudo.labels, pseudo.confidence, pairs, framework.weigher.reliable_conf) & pseudo.valid


def test_pixels_in_cached_boxes_of_their_class_are_reliable(tree, cache):
    framework, batch = make(tree, *cache)
    framework.weigher.reliable_conf = 0.0  # the boxes alone decide
    assert not any("detector" in name for name in framework.state_dict())
    found = reliable(framework, batch)
    assert torch.equal(found, expected(framework, batch, 0.05))
    # Labels of an untrained model are of any class: at least two of the three have boxes that hold some.
    labels = pseudo_labels_of(framework, batch).labels[found]
    assert found.any() and not found.all() and len(labels.unique()) >= 1
    framework.weigher.box_score = 0.85
    assert torch.equal(reliable(framework, batch), expected(framework, batch, 0.85))
    framework.weigher.box_score = 0.95
    assert not reliable(framework, batch).any()


def test_a_step_has_the_shared_ones_losses_but_the_detectors(tree, cache):
    framework, batch = make(tree, *cache)
    assert not any("instances" in item for item in batch["labeled"])
    framework.weigher.reliable_conf = 0.0
    with EventStorage():
        losses = framework(batch)
    assert losses.keys() == {"loss_sem_seg", "loss_unsup"}
    assert all(loss.isfinite() for loss in losses.values())
    framework.after_step()
    assert framework.weigher.unlabeled_bank.counts.sum() > 0


def test_the_same_boxes_are_as_reliable_from_a_file_as_from_a_detector(tree, cache, monkeypatch):
    cached, batch = make(tree, *cache)
    shared, _ = make(tree, *SMALL_DETECTOR)
    shared.load_state_dict(cached.state_dict(), strict=False)
    cached.weigher.reliable_conf = shared.weigher.reliable_conf = 0.0
    ours = pseudo_labels_of(cached, batch)
    monkeypatch.setattr(
        shared.teacher, "detect", lambda features, sizes: [item["detections"] for item in batch["unlabeled"]]
    )
    theirs = pseudo_labels_of(shared, batch)
    assert torch.equal(ours.reliable, theirs.reliable) and ours.reliable.any()


def test_pseudo_labels_are_judged_with_cached_boxes(tree, cache):
    opts = [*cache, "RPPI.CONF", 0.0, "RPPI.BOX_SCORE", 0.85, "TEST.BOX_SCORES", (0.1, 0.95)]
    framework, _ = make(tree, *opts)
    cfg = tree.cfg(*SMALL, *opts)
    results, agreement = judge_pseudo_labels(
        cfg, framework.teacher, framework.weigher, EvalDataset(cfg, name=f"{tree.name}_val")
    )
    assert list(agreement) == [0.1, 0.85, 0.95]
    # One box of "box" and one of "ball" on each of two images; that of "ball" has a low score.
    assert [rows["box"].boxes for rows in agreement.values()] == [2, 0, 0]
    assert [rows["ball"].boxes for rows in agreement.values()] == [2, 0, 0]
    # RPPI believes the box of "ground" alone.
    ground = agreement[0.85]["ground"]
    assert results["accuracy-reliable"] == pytest.approx(ground.inside, nan_ok=True)
    assert agreement[0.95]["ground"].boxes == 0 and np.isnan(agreement[0.95]["ground"].inside)
