import torch
from helpers import forbid_host_sync

from wpl_d2.frameworks.ael.class_banks import sample_classes, sample_true
from wpl_d2.frameworks.random_samples import uniform

SAMPLES = (torch.arange(10_000) + 0.5) / 10_000


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


def test_numbers_are_those_of_the_cpu_generator():
    torch.manual_seed(3)
    found = uniform(2, 3, device=torch.device("cpu"))
    torch.manual_seed(3)
    assert torch.equal(found, torch.rand(2, 3))
