"""CorrMatch's own parts; its losses are held by tests/golden/test_corrmatch_golden.py."""

import logging

import pytest
import torch
from helpers import CORRMATCH
from steps import losses_of, make

from wpl_d2.frameworks.corrmatch import ClassPeaks, propagate_regions
from wpl_d2.structures import IGNORE, PseudoLabels
from wpl_d2.utils.errors import InputError

SIZE = 4, 8


def pseudo_labels(labels, confidence):
    labels, confidence = torch.tensor([labels]), torch.tensor([confidence])
    valid = labels != IGNORE
    return PseudoLabels(labels, confidence, valid, torch.zeros_like(valid), torch.ones_like(confidence))


def halves(**changes):
    """Class 0 at the left and class 1 at the right, confident, but for what is changed at places (row, column)."""
    labels, confidence = [[0] * 4 + [1] * 4 for _ in range(4)], [[0.9] * 8 for _ in range(4)]
    for (y, x), value in changes.get("labels", {}).items():
        labels[y][x] = value
    for (y, x), value in changes.get("confidence", {}).items():
        confidence[y][x] = value
    return pseudo_labels(labels, confidence)


def region(rows, columns, value=1.0):
    maps = torch.zeros(SIZE)
    maps[rows, columns] = value
    return maps


LEFT, RIGHT = region(slice(None), slice(0, 4)), region(slice(None), slice(4, 8), 0.8)
EVERYWHERE = slice(None)


def spread(pseudo, *maps, threshold=0.8):
    found = propagate_regions(pseudo, torch.stack(maps)[None], torch.tensor(threshold), 3, align_corners=False)
    return found.labels[0], found.confidence[0]


def test_a_region_that_is_confident_and_agrees_has_one_label():
    before = halves(labels={(1, 1): 2, (3, 0): 1, (2, 6): 0}, confidence={(1, 1): 0.95, (0, 2): 0.3, (2, 6): 0.4})
    labels, confidence = spread(before, LEFT)
    assert (labels[:, :4] == 0).all() and torch.equal(labels[:, 4:], before.labels[0, :, 4:])
    # A label that is new, or was not confident, is just confident enough to train.
    expected = torch.full(SIZE, 0.9)
    expected[1, 1] = expected[3, 0] = expected[0, 2] = 0.8
    expected[2, 6] = 0.4
    assert torch.equal(confidence, expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": dict.fromkeys([(0, 0), (1, 1), (2, 2), (3, 3)], 2)},  # 0.75 of one class
        {"confidence": dict.fromkeys([(0, 0), (1, 1), (2, 2), (3, 3)], 0.5)},  # 0.75 confident
    ],
)
def test_another_region_changes_nothing(changes):
    before = halves(**changes)
    labels, confidence = spread(before, LEFT)
    assert torch.equal(labels, before.labels[0]) and torch.equal(confidence, before.confidence[0])
    assert not torch.equal(spread(before, LEFT, threshold=0.7)[1], before.confidence[0])


def test_regions_overlap_where_the_higher_map_decides():
    wider = region(EVERYWHERE, slice(3, 8), 0.7)
    labels, _ = spread(halves(), LEFT, wider, threshold=0.7)
    assert (labels[:, 3] == 0).all()
    labels, _ = spread(halves(), 0.6 * LEFT, wider, threshold=0.7)
    assert (labels[:, 3] == 1).all()


def test_padding_neither_counts_nor_gets_a_label():
    before = halves(labels={(y, x): IGNORE for y in range(4) for x in range(3)} | {(0, 3): 1})
    labels, _ = spread(before, LEFT, threshold=0.7)
    assert (labels[:, :3] == IGNORE).all() and (labels[:, 3] == 0).all()
    assert torch.equal(spread(halves(), torch.zeros(SIZE), RIGHT)[0], halves().labels[0])


def test_regions_of_cells_reach_the_pixels_around():
    before = pseudo_labels([[0] * 8 + [1] * 8] * 8, [[0.9] * 16] * 8)
    before.labels[0, 3, 2] = 2
    labels, _ = spread(before, LEFT)
    assert (labels[:, :8] == 0).all() and (labels[:, 8:] == 1).all()


def test_the_threshold_follows_the_peaks_of_classes_that_were_predicted():
    peaks, value = ClassPeaks(4), torch.tensor(0.5)
    assert peaks.follow(value, 0.9) is value
    labels = torch.tensor([[[0, 0, 3], [3, IGNORE, 0]]])
    peaks.stage(torch.tensor([[[0.5, 0.8, 0.4], [0.6, 0.99, 0.7]]]), labels)
    peaks.stage(torch.tensor([[[0.9, 0.1, 0.4], [0.5, 0.99, 0.7]]]), labels)
    assert peaks.follow(value, 0.9).item() == pytest.approx(0.9 * 0.5 + 0.1 * (0.9 + 0.6) / 2)
    peaks.stage(torch.ones(1, 2, 3), torch.full((1, 2, 3), IGNORE))
    assert peaks.follow(value, 0.9) == value


def test_the_threshold_is_in_the_state_and_moves_after_the_step(tree):
    framework, batch = make(tree, *CORRMATCH, "FRAMEWORK.THRESHOLD", 0.3)
    losses_of(framework, batch)
    assert framework.state_dict()["threshold"] == framework.threshold == torch.tensor(0.3)
    framework.after_step()
    assert 0.3 < framework.threshold < 0.4


def test_alpha_is_the_factor_of_the_divergence_and_padding_has_none(tree):
    framework, batch = make(tree, *CORRMATCH)
    full = losses_of(framework, batch)
    half, _ = make(tree, *CORRMATCH, "FRAMEWORK.ALPHA", 0.5)
    found = losses_of(half, batch)
    torch.testing.assert_close(2 * found["loss_kl"], full["loss_kl"])
    assert found["loss_kl"] > 0 and torch.equal(found["loss_correlation"], full["loss_correlation"])
    for item in batch["unlabeled"]:
        item["valid"][:] = False
    assert losses_of(framework, batch)["loss_kl"] == 0


def test_without_regions_labels_stay(tree):
    framework, batch = make(tree, *CORRMATCH, "FRAMEWORK.CORRMATCH.REGIONS", 0)
    losses_of(framework, batch)
    labels = framework.last_step.pseudo_labels.labels
    spreading, _ = make(tree, *CORRMATCH, "FRAMEWORK.CORRMATCH.REGIONS", 16)
    losses_of(spreading, batch)
    assert (spreading.last_step.pseudo_labels.labels != labels).any()


def test_the_log_says_what_it_is(tree, caplog):
    with caplog.at_level(logging.INFO):
        make(tree, *CORRMATCH)
    assert "CorrMatch is in parts a reconstruction" in caplog.text


def test_two_strong_views_are_refused(tree):
    with pytest.raises(InputError, match="VIEWS: 2, but CorrMatch needs 1"):
        make(tree, *CORRMATCH, "INPUT.STRONG.VIEWS", 2)
