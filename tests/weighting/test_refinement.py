"""Each way to mend pseudo-labels equals its definition, computed by loops."""

from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from wpl_d2.structures import IGNORE, Detections, PseudoLabels
from wpl_d2.weighting import Evidence, PixelWeigher, Refinement

CLASSES, DIM, SIZE = 4, 10, (20, 24)
OBJECTS = (1, 3)
MIDDLE = np.ix_(np.arange(2, 20, 4), np.arange(2, 24, 4))
"""Each cell's nearest pixel."""


def make_evidence(seed=0, **more):
    torch.manual_seed(seed)
    logits = F.interpolate(torch.randn(2, CLASSES, 5, 6) * 3, SIZE, mode="bilinear")
    valid = torch.ones(2, *SIZE, dtype=torch.bool)
    valid[1, 16:] = False
    return Evidence(PseudoLabels.from_logits(logits, valid), logits, torch.randn(2, DIM, 5, 6), **more)


def check(evidence, mended, labels, confidence):
    """Labels and confidence as expected where there is a label, none elsewhere, all else as it was."""
    known = evidence.pseudo.labels != IGNORE
    assert mended.labels[known].equal(labels[known]) and (mended.labels[~known] == IGNORE).all()
    torch.testing.assert_close(mended.confidence[known], confidence[known])
    for name in ("valid", "weight", "reliable"):
        assert getattr(mended, name) is getattr(evidence.pseudo, name)
    assert (labels != evidence.pseudo.labels)[known].any()


def test_component_vote_gives_an_object_one_class():
    evidence = make_evidence(1)
    mended = Refinement("component_vote", OBJECTS)(evidence, None)
    labels, confidence = evidence.pseudo.labels.clone(), evidence.pseudo.confidence.clone()
    probability = evidence.logits.softmax(dim=1)
    for image in range(2):
        of_objects = np.isin(evidence.pseudo.labels[image].numpy(), OBJECTS)
        numbers, count = ndimage.label(of_objects[MIDDLE], np.ones((3, 3)))
        for number in range(1, count + 1):
            cells = torch.from_numpy(numbers == number)
            means = [probability[image, c].numpy()[MIDDLE][cells.numpy()].mean() for c in OBJECTS]
            own = cells.repeat_interleave(4, 0).repeat_interleave(4, 1) & torch.from_numpy(of_objects)
            changed = own & (labels[image] != OBJECTS[int(np.argmax(means))])
            labels[image][changed] = OBJECTS[int(np.argmax(means))]
            confidence[image][changed] = float(max(means))
    check(evidence, mended, labels, confidence)


def test_detector_names_an_object_that_boxes_of_another_class_cover():
    boxes = torch.tensor([[0.0, 0, 14, 20], [10, 2, 24, 12], [4, 4, 9, 9]])
    scores, kinds = torch.tensor([0.9, 0.7, 0.4]), torch.tensor([1, 3, 3])
    evidence = make_evidence(3, detections=[Detections(boxes, scores, kinds)] * 2)
    mended = Refinement("detector", OBJECTS, box_score=0.5)(evidence, None)
    labels, confidence = evidence.pseudo.labels.clone(), evidence.pseudo.confidence.clone()
    outcomes = set()
    for image in range(2):
        before = evidence.pseudo.labels[image]
        objects = torch.from_numpy(np.isin(before.numpy(), OBJECTS))
        for kind in OBJECTS:
            numbers, count = ndimage.label((before == kind)[MIDDLE], np.ones((3, 3)))
            for number in range(1, count + 1):
                cells = list(zip(*np.nonzero(numbers == number), strict=True))
                around = [_boxes_around(4 * x + 2.5, 4 * y + 2.5, boxes, scores, kinds) for y, x in cells]
                best = [max(found, default=(0.0, -1)) for found in around]
                other = Counter(
                    name
                    for (score, name), found in zip(best, around, strict=True)
                    if score >= 0.5 and not any(own == kind and of_own >= 0.5 for of_own, own in found)
                )
                name, covered = other.most_common(1)[0] if other else (kind, 0)
                outcomes.add((covered > 0, covered * 2 > len(cells)))
                if covered * 2 > len(cells):
                    part = torch.from_numpy(numbers == number).repeat_interleave(4, 0).repeat_interleave(4, 1)
                    changed = part & objects & (before != name)
                    labels[image][changed] = name
                    confidence[image][changed] = sum(score for score, _ in best) / len(cells)
    assert outcomes == {(False, False), (True, False), (True, True)}
    check(evidence, mended, labels, confidence)


def _boxes_around(x, y, boxes, scores, kinds):
    found = zip(boxes.tolist(), scores.tolist(), kinds.tolist(), strict=True)
    return [(score, kind) for (x0, y0, x1, y1), score, kind in found if x0 <= x < x1 and y0 <= y < y1]


def test_prototype_multiplies_probabilities_by_likeness():
    evidence = make_evidence()
    weigher = PixelWeigher(num_classes=CLASSES, dim=DIM, bank_size=8)
    weigher.labeled_bank.push(torch.randn(6, DIM), torch.tensor([0, 0, 1, 1, 2, 2]))  # none of class 3
    mended = Refinement("prototype")(evidence, weigher.memory)
    cosines = [
        F.cosine_similarity(evidence.embedding, weigher.memory.prototypes[c].view(1, -1, 1, 1)) for c in range(3)
    ]
    likeness = (torch.stack(cosines, dim=1) / 0.1).softmax(dim=1)
    likeness = torch.cat([likeness, torch.full_like(likeness[:, :1], 1 / 3)], dim=1)
    product = evidence.logits.softmax(dim=1) * F.interpolate(likeness, SIZE, mode="nearest-exact")
    confidence, labels = (product / product.sum(dim=1, keepdim=True)).max(dim=1)
    check(evidence, mended, labels, confidence)
    untouched = Refinement("prototype")(evidence, PixelWeigher(num_classes=CLASSES, dim=DIM).memory)
    torch.testing.assert_close(untouched.labels, evidence.pseudo.labels)


def test_tta_takes_the_class_of_the_mean():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, CLASSES, 3, padding=1)
    images = torch.randn(2, 3, *SIZE) * 3
    with torch.no_grad():
        logits = network(images)
        pseudo = PseudoLabels.from_logits(logits, torch.ones(2, *SIZE, dtype=torch.bool))
        evidence = Evidence(pseudo, logits, torch.randn(2, DIM, 5, 6), images=images, segment=network)
        mended = Refinement("tta")(evidence, None)
        views = [logits, network(images.flip(-1)).flip(-1)]
        for scale in (0.75, 1.25):
            other = F.interpolate(images, [int(n * scale) for n in SIZE], mode="bilinear", antialias=True)
            views.append(F.interpolate(network(other), SIZE, mode="bilinear"))
    confidence, labels = torch.stack([view.softmax(dim=1) for view in views]).mean(dim=0).max(dim=1)
    check(evidence, mended, labels, confidence)
