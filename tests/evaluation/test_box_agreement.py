import numpy as np
import pytest
import torch

from wpl_d2.evaluation.box_agreement import OBJECTS, BoxAgreement, agreement_tables
from wpl_d2.structures import Detections, PseudoLabels

CLASSES = ["sky", "car", "dog"]
SIZE = (24, 30)
CONF, IOU = 0.6, 0.5


def image(seed):
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(shape, generator=generator)

    labels = (rand(1, *SIZE) * 3).long()
    target = torch.where(rand(1, *SIZE) < 0.7, labels, (rand(1, *SIZE) * 3).long())
    target[:, :3] = 255
    ones = torch.ones(1, *SIZE)
    pseudo = PseudoLabels(labels, rand(1, *SIZE), ones.bool(), torch.zeros(1, *SIZE).bool(), ones)
    corner, extent = rand(6, 2) * 12, 6 + rand(6, 2) * 12
    boxes = torch.cat([corner, corner + extent], dim=1)
    ids = 1 + (rand(6) * 2).long()
    found = Detections(boxes, rand(6), ids)
    # True boxes: some found ones a little moved, with their class or another's.
    truth = boxes[:4] + rand(4, 4) * 2
    return pseudo, found, target, (truth, torch.where(rand(4) < 0.7, ids[:4], 3 - ids[:4]))


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def brute_force(images, score, wanted):
    """Right ones and number of boxes, pixels, pixels inside and outside of boxes, of some classes."""
    kinds = {name: [] for name in ("box", "pixel", "inside", "outside")}
    for pseudo, found, target, (truth, true_ids) in images:
        boxes = [
            (box, int(c))
            for box, s, c in zip(found.boxes.tolist(), found.scores, found.classes, strict=True)
            if s >= score
        ]
        kinds["box"] += [
            any(iou(box, t) >= IOU and c == i for t, i in zip(truth.tolist(), true_ids.tolist(), strict=True))
            for box, c in boxes
            if c in wanted
        ]
        for y, x in np.ndindex(*SIZE):
            label, true = int(pseudo.labels[0, y, x]), int(target[0, y, x])
            if true == 255 or label not in wanted or pseudo.confidence[0, y, x] < CONF:
                continue
            inside = any(c == label and x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1 for (x0, y0, x1, y1), c in boxes)
            kinds["pixel"].append(label == true)
            kinds["inside" if inside else "outside"].append(label == true)
    return kinds


def test_the_table_is_that_of_a_loop_over_boxes_and_pixels():
    images = [image(seed) for seed in range(4)]
    scores = (0.3, 0.5, 0.8)
    agreement = BoxAgreement(CLASSES, [1, 2], scores, CONF, IOU)
    for one in images:
        agreement.score_image(*one)
    found = agreement.evaluate()
    assert tuple(found) == scores
    for score in scores:
        for name, wanted in {OBJECTS: {1, 2}, "sky": {0}, "car": {1}, "dog": {2}}.items():
            row, expected = found[score][name], brute_force(images, score, wanted)
            assert row.boxes == len(expected["box"])
            for kind, right in expected.items():
                percent = 100 * np.mean(right) if right else float("nan")
                assert getattr(row, kind) == pytest.approx(percent, nan_ok=True)
            assert row.covered == pytest.approx(100 * len(expected["inside"]) / len(expected["pixel"]))
    assert 0 < found[0.3][OBJECTS].box < 100
    assert len({rows[OBJECTS].covered for rows in found.values()}) == 3
    assert "score >= 0.5" in agreement_tables(found, 0.5)


def test_images_without_boxes_and_without_true_boxes_count():
    agreement = BoxAgreement(CLASSES, [1, 2], [0.5], CONF, IOU)
    pseudo, found, target, _ = image(0)
    nothing = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    agreement.score_image(pseudo, found, target, nothing)
    agreement.score_image(pseudo, found.select(found.scores > 2), target, nothing)
    row = agreement.evaluate()[0.5][OBJECTS]
    assert row.boxes == (found.scores >= 0.5).sum() > 0
    assert row.box == 0
