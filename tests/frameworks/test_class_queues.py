import torch
from helpers import forbid_host_sync

from wpl_d2.frameworks.u2pl.class_queues import ClassQueues


def unit(number):
    """A unit vector that tells its number, up to 256."""
    angle = torch.tensor(number / 256)
    return torch.stack([angle.cos(), angle.sin()])


def rows(*numbers):
    """One row a class and number; None is no row."""
    return torch.stack(
        [torch.stack([torch.zeros(2) if n is None else unit(n) for n in per_class]) for per_class in numbers]
    )


def held(queues):
    """The numbers in each class's queue, sorted."""
    found = []
    for kind, (start, count) in enumerate(zip(queues.starts, queues.counts, strict=True)):
        own = queues.rows[start : start + queues.sizes[kind]].float()
        assert (own.norm(dim=1) > 0).sum() == count
        own = own[own.norm(dim=1) > 0]
        found.append(sorted((torch.atan2(own[:, 1], own[:, 0]) * 256).round().int().tolist()))
    return found


def test_the_oldest_leave_first_and_each_class_has_its_own_length():
    queues, expected, sizes = ClassQueues([3, 5], 2), [[], []], [3, 5]
    number = 0
    for step in range(7):
        given = [[None if (step + place + kind) % 3 == 0 else number + place for place in range(4)] for kind in (0, 1)]
        number += 4
        queues.push(rows(*given))
        for kind in (0, 1):
            expected[kind] = (expected[kind] + [n for n in given[kind] if n is not None])[-sizes[kind] :]
        assert held(queues) == [sorted(kind) for kind in expected]
        assert not queues.rows[-1].any()


def test_of_more_rows_than_fit_the_last_remain():
    queues = ClassQueues([3, 2], 2)
    queues.push(rows([1, 2, None, 3, 4], [None, None, None, None, 9]))
    assert held(queues) == [[2, 3, 4], [9]]
    assert queues.counts.tolist() == [3, 1] and queues.pushed.tolist() == [4, 1]


def test_samples_are_spread_over_the_stored_rows():
    queues = ClassQueues([4, 4, 4], 2)
    queues.push(rows([1, 2, 3], [7, None, None], [None, None, None]))
    samples = torch.tensor([0.0, 0.33, 0.34, 0.67, 1.0 - 2**-24]).expand(3, 1, 5)
    with forbid_host_sync():
        drawn = queues.sample(samples)
    assert drawn.shape == (3, 1, 5, 2)
    numbers = (torch.atan2(drawn[..., 1].float(), drawn[..., 0].float()) * 256).round().int()[:, 0].tolist()
    assert numbers[:2] == [[1, 1, 2, 3, 3], [7] * 5]
    assert not drawn[2].any()


def test_everything_lasting_is_in_the_state():
    queues, other = ClassQueues([3, 5], 2), ClassQueues([3, 5], 2)
    queues.push(rows([1, 2, 3, 4], [5, 6, 7, 8]))
    other.load_state_dict(queues.state_dict())
    for each in (queues, other):
        each.push(rows([9, None], [10, 11]))
    assert held(queues) == held(other) == [[3, 4, 9], [6, 7, 8, 10, 11]]
