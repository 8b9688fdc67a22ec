import pytest
import torch
import torch.nn.functional as F
from helpers import forbid_host_sync

from wpl_d2.structures import IGNORE
from wpl_d2.weighting import sample_per_class


def numbered(images, height, width):
    """An embedding whose only channel is the number of the cell."""
    return torch.arange(float(images * height * width)).view(images, 1, height, width)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(6, 7), (23, 29), (4, 4)])
def test_rows_are_distinct_cells_of_their_class(seed, size):
    torch.manual_seed(seed)
    classes, n = 5, 12
    label = torch.randint(0, classes - 1, (2, *size))  # class 4 has no pixel
    label[torch.rand(label.shape) < 0.3] = IGNORE
    with forbid_host_sync():
        features, labels = sample_per_class(numbered(2, 6, 7), label, classes, n)
    assert features.shape == (classes * n, 1) and labels.shape == (classes * n,)
    cells = F.interpolate(label[:, None].float(), (6, 7), mode="nearest-exact").long().flatten()
    for c in range(classes):
        rows = slice(c * n, (c + 1) * n)
        there = min(n, int((cells == c).sum()))
        assert labels[rows].tolist() == [c] * there + [IGNORE] * (n - there)
        chosen = features[rows][:there, 0].long()
        assert len(chosen.unique()) == there
        assert (cells[chosen] == c).all()


def test_every_cell_is_equally_likely():
    torch.manual_seed(0)
    label = torch.tensor([[[3, 3, 0, 3, IGNORE, 3, 3]]])
    drawn = torch.stack([sample_per_class(numbered(1, 1, 7), label, 4, 2)[0] for _ in range(2000)])
    shares = torch.bincount(drawn[:, 6:].flatten().long(), minlength=7) / 2000
    torch.testing.assert_close(shares, torch.tensor([0.4, 0.4, 0, 0.4, 0, 0.4, 0.4]), rtol=0, atol=0.05)


def test_the_global_generator_decides():
    label = torch.zeros(1, 20, 20).long()
    torch.manual_seed(3)
    first, second = (sample_per_class(numbered(1, 20, 20), label, 1, 5)[0] for _ in range(2))
    torch.manual_seed(3)
    again, _ = sample_per_class(numbered(1, 20, 20), label, 1, 5)
    assert again.equal(first) and not second.equal(first)


def test_more_rows_than_cells_and_no_gradient():
    embedding = torch.randn(1, 3, 2, 2, requires_grad=True)
    features, labels = sample_per_class(embedding, torch.ones(1, 2, 2).long(), 2, 9)
    assert not features.requires_grad
    assert labels.tolist() == [IGNORE] * 9 + [1] * 4 + [IGNORE] * 5
