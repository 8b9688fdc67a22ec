from collections import deque

import pytest
import torch
from helpers import forbid_host_sync

from wpl_d2.structures import IGNORE
from wpl_d2.weighting import MemoryBank, pooled_prototypes


class Model:
    """The bank, as deques."""

    def __init__(self, classes, dim, size):
        self.queues = [deque(maxlen=size) for _ in range(classes)]
        self.dim = dim

    def push(self, features, labels):
        for feature, label in zip(features, labels.tolist(), strict=True):
            if label != IGNORE:
                self.queues[label].append(feature)

    def prototypes(self):
        return torch.stack([torch.stack([*q]).mean(0) if q else torch.zeros(self.dim) for q in self.queues])

    def counts(self):
        return [len(q) for q in self.queues]


def contents(bank):
    """What a class holds, as a set of the embeddings' first channels."""
    return [set(ring[:count, 0].tolist()) for ring, count in zip(bank.ring, bank.counts.tolist(), strict=True)]


@pytest.mark.parametrize("seed", range(8))
def test_bank_equals_a_model_of_deques(seed):
    torch.manual_seed(seed)
    classes, dim, size = 5, 3, [1, 2, 4, 7][seed % 4]
    bank, model = MemoryBank(classes, dim, size), Model(classes, dim, size)
    for _ in range(20):
        n = int(torch.randint(0, 30, ()))  # often more than `size` rows of a class, sometimes none
        features, labels = torch.randn(n, dim), torch.randint(0, classes, (n,))  # class 4 stays empty
        labels[(labels == 4) | (torch.rand(n) < 0.2)] = IGNORE
        with forbid_host_sync():
            bank.push(features, labels)
        model.push(features, labels)
        assert bank.counts.tolist() == model.counts()
        torch.testing.assert_close(bank.prototypes(), model.prototypes())
        assert contents(bank) == [{row[0].item() for row in queue} for queue in model.queues]


def test_ring_overwrites_the_oldest_in_order():
    bank = MemoryBank(2, 1, 3)
    bank.push(torch.tensor([[1.0], [2], [9], [3], [4]]), torch.tensor([0, 0, 1, 0, 0]))
    assert contents(bank) == [{2, 3, 4}, {9}]
    bank.push(torch.tensor([[5.0]]), torch.tensor([0]))
    assert contents(bank) == [{3, 4, 5}, {9}]
    bank.push(torch.arange(10.0, 20).unsqueeze(1), torch.zeros(10).long())
    assert contents(bank) == [{17, 18, 19}, {9}]


def test_pushing_nothing_changes_nothing():
    bank = MemoryBank(2, 4, 3)
    bank.push(torch.randn(4, 4), torch.tensor([0, 1, 1, 0]))
    before = {name: value.clone() for name, value in bank.state_dict().items()}
    bank.push(torch.full((3, 4), float("nan")), torch.full((3,), IGNORE))
    bank.push(torch.zeros(0, 4), torch.zeros(0).long())
    for name, value in bank.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_skipped_rows_do_not_reach_the_ring():
    bank = MemoryBank(2, 1, 4)
    nan = float("nan")
    bank.push(torch.tensor([[nan], [1.0], [nan], [2]]), torch.tensor([IGNORE, 1, IGNORE, 1]))
    assert contents(bank) == [set(), {1, 2}]
    assert bank.ring.isfinite().all()


def test_storage_is_float32_and_without_gradient():
    bank = MemoryBank(2, 4, 3)
    features = torch.randn(2, 4, dtype=torch.bfloat16, requires_grad=True)
    bank.push(features, torch.tensor([0, 1]))
    assert bank.ring.dtype == bank.prototypes().dtype == torch.float32
    assert not bank.ring.requires_grad
    torch.testing.assert_close(bank.prototypes(), features.detach().float())


def test_state_dict_round_trip_goes_on_alike():
    torch.manual_seed(0)
    bank, other = MemoryBank(3, 4, 5), MemoryBank(3, 4, 5)
    bank.push(torch.randn(17, 4), torch.randint(0, 3, (17,)))
    other.load_state_dict(bank.state_dict())
    features, labels = torch.randn(4, 4), torch.tensor([0, 0, 1, 2])
    for each in (bank, other):
        each.push(features, labels)
    torch.testing.assert_close(other.state_dict(), bank.state_dict(), rtol=0, atol=0)


def test_pooled_prototypes_are_the_mean_over_all_contents():
    torch.manual_seed(0)
    one, two = MemoryBank(3, 4, 5), MemoryBank(3, 4, 5)
    first, second = torch.randn(5, 4), torch.randn(2, 4)
    one.push(first, torch.tensor([0, 0, 0, 0, 1]))
    two.push(second, torch.tensor([0, 0]))
    prototypes, counts = pooled_prototypes([one, two])
    assert counts.tolist() == [6, 1, 0]
    torch.testing.assert_close(prototypes[0], torch.cat([first[:4], second]).mean(0))
    torch.testing.assert_close(prototypes[1], first[4])
    assert not prototypes[2].any()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="BANK_SIZE"):
        MemoryBank(3, 4, 0)
    with pytest.raises(ValueError, match=r"give \(N, 4\) and \(N,\)"):
        MemoryBank(3, 4, 5).push(torch.randn(2, 3), torch.tensor([0, 0]))
    with pytest.raises(ValueError, match=r"\(N,\)"):
        MemoryBank(3, 4, 5).push(torch.randn(2, 4), torch.tensor([0]))
