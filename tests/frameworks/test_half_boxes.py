import pytest
import torch
from helpers import forbid_host_sync

from wpl_d2.frameworks.mixing import half_boxes

SIZE = (40, 60)


@pytest.mark.parametrize("seed", range(20))
def test_boxes_have_half_the_area_and_lie_inside(seed):
    torch.manual_seed(seed)
    masks = half_boxes(3, SIZE, 1.0)
    assert masks.shape == (3, *SIZE) and masks.dtype == torch.bool
    for mask in masks:
        rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
        height, width = len(rows), len(columns)
        assert mask.sum() == height * width
        assert rows[-1] - rows[0] + 1 == height and columns[-1] - columns[0] + 1 == width
        assert 30 <= width <= 60
        # As near to a half as whole rows can be.
        assert abs(height * width - 1200) <= width / 2
    assert not torch.equal(masks[0], masks[1])


def test_width_and_place_are_spread():
    torch.manual_seed(0)
    masks = half_boxes(4000, SIZE, 1.0)
    widths = masks.any(dim=1).sum(dim=1).float()
    assert widths.min() == 30 and widths.max() >= 58
    assert widths.mean() == pytest.approx(44.5, abs=0.5)
    corners = masks[:, [0, 0, -1, -1], [0, -1, 0, -1]].float().mean(dim=0)
    assert corners.min() > 0.004 and corners.max() < 2 * corners.min()


def test_a_batch_is_mixed_as_a_whole_or_not_at_all():
    torch.manual_seed(0)
    mixed = torch.stack([half_boxes(4, SIZE, 0.5).flatten(1).any(dim=1) for _ in range(200)])
    assert torch.equal(mixed.any(dim=1), mixed.all(dim=1))
    assert 70 < mixed[:, 0].sum() < 130
    assert not half_boxes(4, SIZE, 0.0).any()


def test_no_sample_waits_for_a_device():
    with forbid_host_sync():
        half_boxes(2, SIZE, 0.5)
