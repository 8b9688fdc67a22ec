"""Whole images labeled by a trained model: what is written, and what is not read."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import SMALL, SMALL_DETECTOR, write_detection_cache

from wpl_d2 import build_framework
from wpl_d2.data import read_image
from wpl_d2.data.loader import unlabeled_records
from wpl_d2.data.pseudo_label_store import PseudoLabelStore
from wpl_d2.inference.pseudo_labeling import label_images
from wpl_d2.weighting import rank_overlap

SIZE = (50, 60)
LABELER = ["FRAMEWORK.NAME", "STPlusPlusLabeler", "SEED", 3]
TTA = ["TEST.INFERENCE.SCALES", (0.5, 1.0), "TEST.INFERENCE.FLIP", True]


def make(tree, *opts):
    """A framework whose random weights give labels of several classes, and whose labeled bank is full."""
    cfg = tree.cfg(*SMALL, *LABELER, *TTA, *opts)
    torch.manual_seed(0)
    framework = build_framework(cfg)
    framework.weigher.labeled_bank.push(torch.rand(60, 256), torch.arange(60) % 3)
    for norm in framework.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):  # each image's own statistics
            norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    torch.nn.init.normal_(framework.student.sem_seg_head.predictor.weight)
    return cfg, framework, unlabeled_records(cfg)


@pytest.fixture
def store(tree):
    """Empty; the unlabeled images' masks are files that nobody can read."""
    for number in range(5):
        tree.mask(f"unlabeled{number}").write_bytes(b"")
    return PseudoLabelStore(tree.root / "stored", num_classes=3)


def mean_of_views(model, image):
    """Labels by the mean probability over two scales, each mirrored too."""
    total = 0.0
    for view in (image, F.interpolate(image, (25, 30), mode="bilinear", antialias=True)):
        for logits in (model.segment(view), model.segment(view.flip(-1)).flip(-1)):
            total = total + F.interpolate(logits, SIZE, mode="bilinear").softmax(1)
    return total.argmax(1)[0]


@torch.no_grad()
def test_labels_are_those_of_all_views_and_weights_those_of_the_image_itself(tree, store):
    cfg, framework, records = make(tree)
    label_images(cfg, framework, records, store)
    model, prototypes = framework.student.eval(), framework.weigher.memory.prototypes
    shared = set()
    for record in records:
        image = torch.tensor(read_image(record["file_name"])).permute(2, 0, 1)[None].float()
        labels, weight = map(torch.from_numpy, store.read(record, SIZE))
        assert (labels == mean_of_views(model, image)).float().mean() > 0.999  # but for rounding
        assert len(labels.unique()) > 1
        embedding = model.decode(model.encode(model.normalize(image)), SIZE).embedding
        assert torch.equal(weight, rank_overlap(embedding, labels.long()[None], prototypes, k=5)[0])
        shared |= set((5 * weight).round().int().unique().tolist())
    assert len(shared) > 2


def test_an_image_that_cannot_be_read_gets_no_labels_and_no_image_is_labeled_twice(tree, store):
    cfg, framework, records = make(tree)
    tree.image("unlabeled3").write_bytes(b"")
    store.write(records[0], np.full(SIZE, 2))
    label_images(cfg, framework, records, store)
    assert [record["image_id"] for record in records if record not in store] == ["unlabeled3"]
    assert (store.read(records[0], SIZE)[0] == 2).all()


def test_reliable_pixels_join_the_bank_before_labels_are_weighed(tree, store):
    """The same after a stop, whose labels are not made again."""
    boxes = write_detection_cache(
        tree.root / "boxes.npz", [f"unlabeled{i}" for i in range(5)], [[0, 0, 60, 50]] * 2, [0.9, 0.9], [1, 2]
    )
    opts = [*SMALL_DETECTOR, "MODEL.DETECTOR.MODE", "cached", "MODEL.DETECTOR.CACHE", boxes, "RPPI.CONF", 0.0]
    cfg, framework, records = make(tree, *opts)
    tree.image("unlabeled3").write_bytes(b"")
    label_images(cfg, framework, records, store)
    bank = framework.weigher.unlabeled_bank
    assert bank.counts[0] == 0 and bank.counts[1:].sum() >= 4
    first = {path: path.read_bytes() for path in store.folder.rglob("*.png")}
    next(path for path in first if path.parent.name == "labels").unlink()
    cfg, framework, records = make(tree, *opts)
    label_images(cfg, framework, records, store)
    assert torch.equal(framework.weigher.unlabeled_bank.ring, bank.ring)
    assert {path: path.read_bytes() for path in store.folder.rglob("*.png")} == first
    without = PseudoLabelStore(tree.root / "without", num_classes=3)
    cfg, framework, records = make(tree, *opts, "RPPI.ENABLED", False)
    label_images(cfg, framework, records, without)
    assert any((store.read(r, SIZE)[1] != without.read(r, SIZE)[1]).any() for r in records if r in store)
