"""Each kind of weight equals its definition, computed by loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import forbid_host_sync
from scipy import ndimage

from wpl_d2.structures import IGNORE, Detections, PseudoLabels
from wpl_d2.weighting import Evidence, PixelWeigher, rank_overlap
from wpl_d2.weighting.scores import ScoreOptions, comparable_scores

CLASSES, DIM, SIZE = 4, 10, (20, 24)


def make_evidence(seed=0, **more):
    """Two views of blobs, some of them without a label, and their embedding at stride 4."""
    torch.manual_seed(seed)
    logits = F.interpolate(torch.randn(2, CLASSES, 5, 6) * 4, SIZE, mode="bilinear")
    valid = torch.ones(2, *SIZE, dtype=torch.bool)
    valid[1, 16:] = False
    return Evidence(PseudoLabels.from_logits(logits, valid), logits, torch.randn(2, DIM, 5, 6), **more)


def score_of(kind, evidence, counts=(6, 4, 3, 0), **options):
    weigher = PixelWeigher(num_classes=CLASSES, dim=DIM, kind=kind, k=3, bank_size=8, min_count=1, **options)
    labels = torch.repeat_interleave(torch.arange(CLASSES), torch.tensor(counts))
    weigher.labeled_bank.push(torch.randn(len(labels), DIM), labels)
    return weigher.scores[kind](evidence, weigher.memory), weigher


def pixels(labels):
    """Index (b, y, x) and class of every labeled pixel."""
    for place in torch.cartesian_prod(*(torch.arange(n) for n in labels.shape)).tolist():
        if labels[tuple(place)] != IGNORE:
            yield tuple(place), labels[tuple(place)].item()


@pytest.mark.parametrize("centered", [False, True])
def test_rank_margin(centered):
    evidence = make_evidence()
    found, weigher = score_of("rank_margin", evidence, centered=centered)
    prototypes, labels = weigher.memory.prototypes, evidence.pseudo.labels
    mean = prototypes[:3].mean(dim=0) if centered else torch.zeros(DIM)
    prototypes = torch.cat([prototypes[:3] - mean, prototypes[3:]])  # class 3 is empty
    embedding = evidence.embedding - mean[:, None, None]
    to_class = [rank_overlap(embedding, torch.full_like(labels, c), prototypes, 3) for c in range(CLASSES)]
    for place, own in pixels(labels):
        best = max(to_class[c][place].item() for c in range(CLASSES) if c != own)
        assert found[place].item() == pytest.approx((1 + to_class[own][place].item() - best) / 2, abs=1e-6)


@pytest.mark.parametrize("kind", ["cosine_margin", "knn_margin"])
@pytest.mark.parametrize("centered", [False, True])
def test_margins_of_cosines(kind, centered):
    evidence = make_evidence()
    found, weigher = score_of(kind, evidence, centered=centered)
    memory = weigher.memory
    mean = memory.prototypes[:3].mean(dim=0) if centered else torch.zeros(DIM)
    for place, own in pixels(evidence.pseudo.labels):
        b, y, x = place
        cell = evidence.embedding[b, :, y // 4, x // 4] - mean
        likeness = []
        for c in range(CLASSES):
            rows = weigher.labeled_bank.ring[c, : weigher.labeled_bank.counts[c]]
            rows = rows if kind == "knn_margin" else rows.mean(dim=0, keepdim=True)
            cosines = (F.cosine_similarity(cell, row - mean, dim=0).clamp(min=0).item() for row in rows)
            nearest = sorted(cosines, reverse=True)[:8]
            likeness.append(sum(nearest) / len(nearest) if memory.counts[c] else 0.0)
        best = max(value for c, value in enumerate(likeness) if c != own)
        assert found[place].item() == pytest.approx((1 + likeness[own] - best) / 2, abs=1e-5)


def test_object_by_class_is_confidence_times_its_mean_over_the_class():
    evidence = make_evidence()
    found, _ = score_of("object", evidence, object_region="class")
    pseudo = evidence.pseudo
    for image in range(2):
        for c in range(CLASSES):
            own = pseudo.labels[image] == c
            confidence = pseudo.confidence[image][own]
            torch.testing.assert_close(found[image][own], confidence * confidence.mean() if own.any() else confidence)


def test_object_by_component_is_confidence_times_its_mean_over_the_component():
    evidence = make_evidence(3)
    found, _ = score_of("object", evidence)
    labels, confidence = evidence.pseudo.labels.numpy(), evidence.pseudo.confidence.numpy()
    middle = np.ix_(np.arange(2), np.arange(2, 20, 4), np.arange(2, 24, 4))  # each cell's nearest pixel
    cells, known = labels[middle], confidence[middle]
    parts = 0
    for image in range(2):
        for c in range(CLASSES):
            numbers, count = ndimage.label(cells[image] == c, np.ones((3, 3)))
            parts += count
            for number in range(1, count + 1):
                part = numbers == number
                mean = known[image][part].mean()
                own = part.repeat(4, 0).repeat(4, 1) & (labels[image] == c)
                assert found[image].numpy()[own] == pytest.approx(confidence[image][own] * mean, abs=1e-6)
        strays = labels[image] != cells[image].repeat(4, 0).repeat(4, 1)
        assert found[image].numpy()[strays] == pytest.approx(confidence[image][strays] ** 2, abs=1e-6)
        assert strays.any()
    assert parts > 4


def test_softmatch_follows_mean_and_variance_of_the_confidence():
    mean, variance = 1 / CLASSES, 1.0
    weigher = PixelWeigher(num_classes=CLASSES, dim=DIM, kind="softmatch", momentum=0.6)
    for step in range(4):
        evidence = make_evidence(step)
        confidence = evidence.pseudo.confidence
        expected = torch.exp(-((confidence - mean).clamp(max=0) ** 2) / (2 * variance / 4))
        torch.testing.assert_close(weigher.scores["softmatch"](evidence, weigher.memory), expected)
        weigher.after_step()
        seen = confidence[evidence.pseudo.valid]
        mean = 0.6 * mean + 0.4 * seen.mean().item()
        variance = 0.6 * variance + 0.4 * seen.var(unbiased=False).item()
    assert 0 < expected.min() < expected.max() == 1


def test_detector_is_the_best_box_of_the_own_class_and_no_box_for_the_rest():
    rng = np.random.default_rng(0)
    detections = []
    for count in (19, 0):
        corner = rng.uniform(-3, 15, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0, 12, (count, 2))], axis=1)
        boxes[: count // 3] = boxes[: count // 3].round()
        kinds, scores = rng.choice([1, 3], count), rng.uniform(0, 1, count)
        detections.append(Detections(torch.tensor(boxes).float(), torch.tensor(scores), torch.tensor(kinds)))
    evidence = make_evidence(detections=detections)
    found, _ = score_of("detector", evidence, objects=(1, 3))
    touched = 0
    for (b, y, x), own in pixels(evidence.pseudo.labels):
        around = [
            (score, kind)
            for (x0, y0, x1, y1), kind, score in zip(
                detections[b].boxes.tolist(),
                detections[b].classes.tolist(),
                detections[b].scores.tolist(),
                strict=True,
            )
            if x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1
        ]
        if own in (1, 3):
            expected = max((score for score, kind in around if kind == own), default=0.0)
        else:
            expected = 1 - max((score for score, _ in around), default=0.0)
        touched += bool(around)
        assert found[b, y, x].item() == pytest.approx(expected, abs=1e-6)
    assert touched > 50


def test_tta_is_the_mean_probability_over_four_views():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, CLASSES, 3, padding=1)
    images, sizes = torch.randn(2, 3, *SIZE) * 3, []

    def segment(views):
        sizes.append(tuple(views.shape[-2:]))
        return network(views)

    logits = network(images)
    pseudo = PseudoLabels.from_logits(logits, torch.ones(2, *SIZE, dtype=torch.bool))
    evidence = Evidence(pseudo, logits, torch.randn(2, DIM, 5, 6), images=images, segment=segment)
    with torch.no_grad():
        found, _ = score_of("tta", evidence)
        views = [logits, network(images.flip(-1)).flip(-1)]
        for scale in (0.75, 1.25):
            smaller = F.interpolate(images, [int(n * scale) for n in SIZE], mode="bilinear", antialias=True)
            views.append(F.interpolate(network(smaller), SIZE, mode="bilinear"))
        mean = torch.stack([view.softmax(dim=1) for view in views]).mean(dim=0)
    assert sizes == [(20, 24), (15, 18), (25, 30)]
    torch.testing.assert_close(found, mean.gather(1, pseudo.labels[:, None])[:, 0])


def test_comparable_scores_are_all_that_the_evidence_allows():
    options = ScoreOptions(CLASSES, (1, 3))
    everything = comparable_scores(options, lacks=())
    assert {"rank", "rank_centered", "object", "object_class", "detector", "tta"} < everything.keys()
    assert everything["cosine_centered"].options.centered and not everything["cosine"].options.centered
    poor = comparable_scores(options, lacks=("boxes", "views"))
    assert everything.keys() - poor.keys() == {"detector", "tta"}
    evidence = make_evidence()
    _, weigher = score_of("rank", evidence)
    with forbid_host_sync():
        maps = [score(evidence, weigher.memory) for score in poor.values()]
    for found in maps:
        known = evidence.pseudo.labels != IGNORE
        assert found.shape == known.shape and found[known].min() >= 0 and found[known].max() <= 1


def test_scores_use_both_banks():
    evidence = make_evidence()
    weigher = PixelWeigher(num_classes=CLASSES, dim=DIM, bank_size=8)
    first, second = torch.rand(8, DIM), torch.rand(2, DIM)
    weigher.labeled_bank.push(first, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))
    weigher.unlabeled_bank.push(second, torch.tensor([1, 1]))
    rows = (first[:2], torch.cat([first[2:4], second]), first[4:6], first[6:])
    prototypes = torch.stack([own.mean(dim=0) for own in rows])
    torch.testing.assert_close(weigher.memory.prototypes, prototypes)
    found = weigher.scores["rank"](evidence, weigher.memory)
    torch.testing.assert_close(found, rank_overlap(evidence.embedding, evidence.pseudo.labels, prototypes))
