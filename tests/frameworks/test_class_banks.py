import pytest
import torch
from helpers import forbid_host_sync

from wpl_d2.frameworks.ael.class_banks import ConfidenceBank, PresenceBank, sample_classes, sample_true
from wpl_d2.structures import IGNORE

SAMPLES = (torch.arange(10_000) + 0.5) / 10_000


def test_confidence_is_the_moving_mean_of_the_true_classs_probability():
    torch.manual_seed(0)
    bank, expected = ConfidenceBank(4, momentum=0.9), [0.0] * 4
    for _ in range(3):
        logits, target = torch.randn(2, 4, 5, 6), torch.randint(0, 3, (2, 5, 6))  # class 3 is never seen
        target[0, :2] = IGNORE
        probability = logits.softmax(1)
        for kind in range(3):
            values = [probability[i, kind][target[i] == kind] for i in range(2)]
            expected[kind] = 0.9 * expected[kind] + 0.1 * torch.cat(values).mean().item()
        with forbid_host_sync():
            bank.stage(logits, target)
            bank.after_step()
    assert bank.confidence.tolist() == pytest.approx(expected, rel=1e-5)
    assert (bank.confidence[:3] > 0.02).all() and bank.confidence[3] == 0
    assert torch.equal(bank.uncertainty, 1 - bank.confidence)


def test_classes_that_a_batch_lacks_keep_their_confidence():
    bank = ConfidenceBank(3, momentum=0.5)
    bank.confidence.fill_(0.6)
    bank.stage(torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), IGNORE))
    bank.after_step()
    assert (bank.confidence == 0.6).all()
    bank.stage(torch.zeros(1, 3, 2, 2), torch.tensor([[[1, 1], [IGNORE, 1]]]))
    assert (bank.confidence == 0.6).all()  # not before the commit
    bank.after_step()
    assert bank.confidence.tolist() == pytest.approx([0.6, 0.3 + 1 / 6, 0.6])
    bank.after_step()
    assert bank.confidence[1] == pytest.approx(0.3 + 1 / 6)


def test_confidences_of_several_forwards_are_those_of_all_their_images():
    torch.manual_seed(0)
    logits, target = torch.randn(4, 3, 5, 6), torch.randint(0, 3, (4, 5, 6))
    target[0] = IGNORE
    whole, parts = ConfidenceBank(3, momentum=0.9), ConfidenceBank(3, momentum=0.9)
    whole.stage(logits, target)
    for images in (slice(1), slice(1, 4)):
        parts.stage(logits[images], target[images])
    whole.after_step()
    parts.after_step()
    torch.testing.assert_close(parts.confidence, whole.confidence)


def labels_with(*areas):
    """(10, 10) labels with so many pixels of class 0, 1, ... and `IGNORE` else."""
    flat = torch.full((100,), IGNORE)
    start = 0
    for kind, area in enumerate(areas):
        flat[start : start + area] = kind
        start += area
    return flat.view(10, 10)


def test_a_class_is_present_from_its_least_area_on():
    bank = PresenceBank(4, 3, min_area=0.03)
    with forbid_host_sync():
        bank.stage([2, 0], torch.stack([labels_with(3, 2, 40), labels_with(0, 90)]))
        bank.after_step()
    assert bank.present.tolist() == [[False, True, False], [False] * 3, [True, False, True], [False] * 3]


def test_the_last_view_decides_and_views_of_one_step_add_up():
    bank = PresenceBank(2, 3, min_area=0.1)
    bank.stage([1, 1], torch.stack([labels_with(50), labels_with(0, 50)]))
    assert not bank.present.any()
    bank.after_step()
    assert bank.present.tolist() == [[False] * 3, [True, True, False]]
    bank.stage([1], labels_with(0, 0, 20)[None])
    bank.after_step()
    assert bank.present[1].tolist() == [False, False, True]
    bank.after_step()
    assert bank.present[1].tolist() == [False, False, True]
    for labels in (labels_with(50), labels_with(0, 50)):  # of two forwards
        bank.stage([1], labels[None])
    bank.after_step()
    assert bank.present[1].tolist() == [True, True, False]


def test_images_are_drawn_from_those_that_show_the_class_or_from_all():
    bank = PresenceBank(5, 3, min_area=0.1)
    bank.present[[1, 4], 0] = True
    bank.present[2, 1] = True
    samples = (torch.arange(100) + 0.5) / 100

    def drawn(kind):
        with forbid_host_sync():
            found = bank.sample_images(torch.full((100,), kind), samples)
        return torch.bincount(found, minlength=5).tolist()

    assert drawn(0) == [0, 50, 0, 0, 50]
    assert drawn(1) == [0, 0, 100, 0, 0]
    assert drawn(2) == [20] * 5
    assert PresenceBank(1, 3, 0.1).sample_images(torch.tensor([0, 2]), torch.tensor([0.1, 0.9])).tolist() == [0, 0]


def test_classes_have_the_probabilities_of_the_softmax():
    logits = torch.tensor([-torch.inf, 0.0, 1.0, -torch.inf, 2.0, -torch.inf])
    with forbid_host_sync():
        drawn = sample_classes(logits, SAMPLES)
    found = torch.bincount(drawn, minlength=6) / len(drawn)
    torch.testing.assert_close(found, logits.softmax(0), atol=2e-4, rtol=0)
    assert sample_classes(torch.zeros(1), torch.tensor([0.0, 0.9999999])).tolist() == [0, 0]


def test_every_true_place_is_as_likely():
    mask = torch.zeros(1, 9, dtype=torch.bool)
    mask[0, [0, 3, 4, 8]] = True
    with forbid_host_sync():
        drawn = sample_true(mask.expand(len(SAMPLES), -1), SAMPLES)
    assert torch.bincount(drawn, minlength=9).tolist() == [2500, 0, 0, 2500, 2500, 0, 0, 0, 2500]


def test_rows_are_drawn_apart_and_an_empty_one_gives_a_place_too():
    mask = torch.tensor([[False, True, False], [False, False, True], [False, False, False]])
    assert sample_true(mask, torch.rand(3)).tolist()[:2] == [1, 2]
    assert 0 <= sample_true(mask, torch.rand(3))[2] < 3


def test_a_large_sample_of_a_long_row_stays_inside():
    mask = torch.ones(1, 3_000_000, dtype=torch.bool)
    largest = torch.nextafter(torch.ones(1), torch.zeros(1))
    assert sample_true(mask, largest) == len(mask[0]) - 1
    mask[0, -1] = False
    assert sample_true(mask, largest) == len(mask[0]) - 2
