import pytest
import torch
from helpers import forbid_host_sync

from wpl_d2.frameworks.ael.class_banks import ConfidenceBank, PresenceBank
from wpl_d2.structures import IGNORE


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
