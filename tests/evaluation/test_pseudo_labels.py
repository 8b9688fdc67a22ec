import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from wpl_d2.evaluation import PseudoLabelEvaluator, pseudo_labels
from wpl_d2.evaluation.pseudo_labels import pseudo_label_table
from wpl_d2.evaluation.statistics import (
    BINS,
    CONFIDENCES,
    auroc,
    calibration_results,
    confidence_of_bins,
    histograms,
    spread_confidence,
)
from wpl_d2.structures import PseudoLabels

CLASSES = ["sky", "car", "dog"]
THRESHOLD = 0.8


def area(score, right, mask=None):
    mask = torch.ones_like(right) if mask is None else mask
    return auroc(histograms(score, right.long(), mask, 2).numpy())


def test_auroc_of_fine_scores_is_sklearns():
    generator = torch.Generator().manual_seed(0)
    right = torch.rand(5000, generator=generator) < 0.7
    score = (torch.rand(5000, generator=generator) + 0.2 * right) / 1.2
    assert area(score, right) == pytest.approx(roc_auc_score(right, score), abs=1e-4)


def test_auroc_of_rank_weights_is_exact():
    generator = torch.Generator().manual_seed(1)
    right = torch.rand(3000, generator=generator) < 0.5
    score = (torch.randint(0, 6, (3000,), generator=generator) * right.float()).div(5)
    assert area(score, right) == pytest.approx(roc_auc_score(right, score), abs=1e-12)


def test_auroc_heeds_the_mask_and_one_sided_sets():
    score, right = torch.tensor([0.1, 0.9, 0.5, 0.2]), torch.tensor([False, True, False, True])
    mask = torch.tensor([True, True, False, False])
    assert area(score, right, mask) == 1.0
    assert area(1 - score, right, mask) == 0.0
    assert np.isnan(area(score, right, right))


def test_confidences_near_one_stay_apart():
    generator = torch.Generator().manual_seed(2)
    rest = torch.rand(4000, generator=generator).mul(-12).exp()
    right = torch.rand(4000, generator=generator) < (1 - rest).sqrt() * 0.5
    confidence = 1 - rest
    truth = roc_auc_score(right, confidence)
    near_one = confidence > 0.999
    assert near_one.float().mean() > 0.3
    assert area(spread_confidence(confidence), right) == pytest.approx(truth, abs=1e-3)
    part = area(spread_confidence(confidence), right, near_one)
    assert part == pytest.approx(roc_auc_score(right[near_one], confidence[near_one]), abs=1e-2)
    assert spread_confidence(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([0, 1 / 24, 1], abs=1e-6)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 20, 24)
    labels = torch.randint(0, 3, shape, generator=generator)
    target = torch.where(
        torch.rand(shape, generator=generator) < 0.6, labels, torch.randint(0, 3, shape, generator=generator)
    )
    target[:, :2] = 255
    valid = torch.ones(shape, dtype=torch.bool)
    valid[:, :, -3:] = False
    pseudo = PseudoLabels(
        labels=labels.masked_fill(~valid, 255),
        confidence=torch.rand(shape, generator=generator),
        valid=valid,
        reliable=(torch.rand(shape, generator=generator) < 0.2) & valid,
        weight=torch.rand(shape, generator=generator),
    )
    boxes = [
        (torch.tensor([[2.0, 3, 10, 12], [8, 8, 20, 18]]), torch.tensor([1, 2])),
        (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    ]
    return pseudo, target, boxes


def brute_force(pseudo, target, boxes):
    pixels = []
    for b, y, x in np.ndindex(*target.shape):
        label, true = int(pseudo.labels[b, y, x]), int(target[b, y, x])
        if not pseudo.valid[b, y, x] or true == 255:
            continue
        confident = bool(pseudo.confidence[b, y, x] >= THRESHOLD)
        inside = any(
            c == label and x0 <= x < x1 and y0 <= y < y1
            for (x0, y0, x1, y1), c in zip(boxes[b][0].tolist(), boxes[b][1].tolist(), strict=True)
        )
        groups = {"pixel"} | ({"confident"} if confident else set())
        groups |= {"reliable"} if pseudo.reliable[b, y, x] else set()
        groups |= {"outside"} if confident and not inside and label in (1, 2) else set()
        pixels.append((label, label == true, groups, float(pseudo.weight[b, y, x])))
    return pixels


def share(pixels, test):
    return 100 * sum(map(test, pixels)) / len(pixels) if pixels else float("nan")


def test_groups_match_a_loop_over_pixels():
    evaluator = PseudoLabelEvaluator(CLASSES, [1, 2], THRESHOLD)
    pixels = []
    for seed in (0, 1):
        pseudo, target, boxes = batch(seed)
        evaluator.score_batch(pseudo, {}, target, boxes)
        pixels += brute_force(pseudo, target, boxes)
    results = evaluator.evaluate()
    for group in ("pixel", "confident", "reliable", "outside"):
        members = [p for p in pixels if group in p[2]]
        assert len(members) > 100
        assert results[f"accuracy-{group}"] == pytest.approx(share(members, lambda p: p[1]))
        assert results[f"coverage-{group}"] == pytest.approx(100 * len(members) / len(pixels))
        for index, name in enumerate(CLASSES):
            own = [p for p in members if p[0] == index]
            accuracy = share(own, lambda p: p[1])
            assert results[f"accuracy-{group}-{name}"] == pytest.approx(accuracy, nan_ok=True)
            whole = sum(p[0] == index for p in pixels)
            assert results[f"coverage-{group}-{name}"] == pytest.approx(100 * len(own) / whole)
        objects = [p for p in members if p[0] in (1, 2)]
        assert results[f"accuracy-{group}-all objects"] == pytest.approx(share(objects, lambda p: p[1]))
        whole = sum(p[0] in (1, 2) for p in pixels)
        assert results[f"coverage-{group}-all objects"] == pytest.approx(100 * len(objects) / whole)


def test_what_a_weight_leaves_of_the_labels_is_their_sum():
    evaluator = PseudoLabelEvaluator(CLASSES, [1, 2], THRESHOLD)
    pseudo, target, boxes = batch()
    evaluator.score_batch(pseudo, {}, target, boxes)
    results, pixels = evaluator.evaluate(), brute_force(pseudo, target, boxes)
    for part, ids in {"": (0, 1, 2), "-all objects": (1, 2), "-sky": (0,), "-dog": (2,)}.items():
        own = [p for p in pixels if p[0] in ids]
        confident = [p for p in own if "confident" in p[2]]
        left, right = sum(p[3] for p in confident), sum(p[3] for p in confident if p[1])
        assert results[f"accuracy-weighted{part}"] == pytest.approx(100 * right / left)
        assert results[f"coverage-weighted{part}"] == pytest.approx(100 * left / len(own))


@pytest.mark.parametrize(("objects", "foreground"), [([2], [2]), ([], [1, 2]), ([0, 1], [0, 1]), ([1, 2], [1, 2])])
def test_the_foreground_is_the_objects_or_all_but_the_first_class(objects, foreground):
    evaluator = PseudoLabelEvaluator(CLASSES, objects, THRESHOLD)
    pseudo, target, boxes = batch()
    evaluator.score_batch(pseudo, {}, target, boxes)
    results = evaluator.evaluate()
    judged = pseudo.valid & (target != 255) & torch.isin(pseudo.labels, torch.tensor(foreground))
    right = pseudo.labels == target
    assert results["accuracy-pixel-all objects"] == pytest.approx(100 * right[judged].float().mean().item())
    sure = judged & (pseudo.confidence >= THRESHOLD)
    area = roc_auc_score(right[sure], pseudo.confidence[sure])
    assert results["auroc-confidence-confident-all objects"] == pytest.approx(area, abs=2e-3)


def test_a_data_set_of_one_class_has_no_foreground():
    evaluator = PseudoLabelEvaluator(["sky"], [], THRESHOLD)
    shape = (1, 4, 5)
    ones, sky = torch.ones(shape), torch.zeros(shape, dtype=torch.int64)
    pseudo = PseudoLabels(sky, ones * 0.9, ones.bool(), ones.bool(), ones)
    evaluator.score_batch(pseudo, {}, sky, None)
    results = evaluator.evaluate()
    assert results["accuracy-pixel"] == 100
    assert np.isnan(results["accuracy-pixel-all objects"])
    assert np.isnan(results["calibration-error-all objects"])


def calibration_by_loop(confidence, right):
    """Of each group: number of labels, mean confidence, share of right ones."""
    edges = [*CONFIDENCES, float("inf")]
    found = {}
    for low, high in itertools.pairwise(edges):
        own = [(c, r) for c, r in zip(confidence.tolist(), right.tolist(), strict=True) if low <= c < high]
        found[low] = len(own), *(np.mean([pair[i] for pair in own]) if own else float("nan") for i in (0, 1))
    return found


@pytest.mark.parametrize("spread", ["even", "near one", "certain", "one group"])
def test_the_calibration_curve_is_that_of_a_loop_over_labels(spread):
    generator = torch.Generator().manual_seed(3)
    draws = torch.rand(4000, generator=generator)
    confidence = {
        "even": draws,
        "near one": 1 - draws.mul(-10).exp(),
        "certain": torch.ones_like(draws),
        "one group": 0.91 + draws * 0.03,
    }[spread]
    right = torch.rand(4000, generator=generator) < confidence**2
    # Edges fall between two fine bins, so labels on an edge are kept away from it.
    near = (confidence[:, None] - torch.tensor(CONFIDENCES)).abs() < 2e-3 * (1 - torch.tensor(CONFIDENCES))
    confidence, right = confidence[~near.any(1)], right[~near.any(1)]
    mask = torch.ones_like(right)
    counts = histograms(spread_confidence(confidence), right.long(), mask, 2).numpy()
    results, error = calibration_results(counts, "-part"), 0.0
    for low, (count, sure, accuracy) in calibration_by_loop(confidence, right).items():
        assert results[f"calibration-coverage-part@{low:g}"] == pytest.approx(100 * count / len(right))
        assert results[f"calibration-confidence-part@{low:g}"] == pytest.approx(100 * sure, abs=0.1, nan_ok=True)
        assert results[f"calibration-accuracy-part@{low:g}"] == pytest.approx(100 * accuracy, nan_ok=True)
        error += 100 * abs(accuracy - sure) * count / len(right) if count else 0
    assert results["calibration-error-part"] == pytest.approx(error, abs=0.1)


def test_the_confidence_of_a_bin_is_the_one_that_was_counted_there():
    confidence = torch.tensor([0.0, 0.2, 0.5, 0.9, 0.99, 0.9999, 1.0])
    for value, bin_ in zip(confidence, (spread_confidence(confidence) * (BINS - 1)).round().int(), strict=True):
        assert confidence_of_bins()[bin_] == pytest.approx(value.item(), abs=2.1e-3 * (1 - value.item()) + 1e-7)


def test_scores_are_judged_over_all_and_over_confident_pixels():
    evaluator = PseudoLabelEvaluator(CLASSES, [1, 2], THRESHOLD, ["oracle", "noisy"], sure=0.6)
    pseudo, target, _ = batch()
    right = pseudo.labels == target
    noise = torch.rand(target.shape, generator=torch.Generator().manual_seed(9))
    evaluator.score_batch(pseudo, {"oracle": right.float(), "noisy": (noise + right) / 2}, target, None)
    results = evaluator.evaluate()
    judged = pseudo.valid & (target != 255)
    confident = judged & (pseudo.confidence >= THRESHOLD)
    sure = judged & (pseudo.confidence >= 0.6)
    assert confident.sum() < sure.sum() < judged.sum()
    for scope, mask in (("pixel", judged), ("confident", confident), ("sure", sure)):
        assert results[f"auroc-oracle-{scope}"] == 1
        for name, score in (("noisy", noise + right), ("confidence", pseudo.confidence)):
            expected = roc_auc_score(right[mask], score[mask])
            assert results[f"auroc-{name}-{scope}"] == pytest.approx(expected, abs=2e-3)
            for index, label in enumerate(CLASSES):
                own = mask & (pseudo.labels == index)
                expected = roc_auc_score(right[own], score[own])
                assert results[f"auroc-{name}-{scope}-{label}"] == pytest.approx(expected, abs=5e-3)
    assert results["coverage-outside"] == 0 and np.isnan(results["accuracy-outside"])
    assert "noisy" in pseudo_label_table(results, CLASSES)


def test_a_process_without_an_image_takes_part_in_the_same_sums(monkeypatch):
    summed = []
    real = pseudo_labels.sum_over_ranks
    monkeypatch.setattr(pseudo_labels, "sum_over_ranks", lambda counts: summed.append(counts.shape) or real(counts))
    pseudo, target, boxes = batch()
    maps = {name: torch.rand(target.shape) for name in ("rank", "cosine")}
    names = []
    for images in (1, 0):
        evaluator = PseudoLabelEvaluator(CLASSES, [1, 2], THRESHOLD, tuple(maps))
        for _ in range(images):
            evaluator.score_batch(pseudo, maps, target, boxes)
        names.append(list(evaluator.evaluate()))
    assert summed[: len(summed) // 2] == summed[len(summed) // 2 :]
    assert names[0] == names[1]
