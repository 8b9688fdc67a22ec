import numpy as np
import pytest
import torch
from helpers import forbid_host_sync
from scipy import ndimage

from wpl_d2.frameworks.ael.copy_paste import sample_component_boxes
from wpl_d2.structures import IGNORE
from wpl_d2.weighting.components import connected_components


def blobs(seed, size=(70, 90)):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(size), 3)
    return noise > 0


def parts_of(mask):
    return ndimage.label(mask, np.ones((3, 3)))


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_those_of_scipy(seed):
    masks = np.stack([blobs(seed), blobs(seed + 100)])
    found = connected_components(torch.from_numpy(masks))
    for mask, numbers in zip(masks, found.numpy(), strict=True):
        expected, count = parts_of(mask)
        assert count > 3
        pairs = set(zip(expected.flat, numbers.flat, strict=True))
        assert len(pairs) == count + 1  # one number for each part, and no number twice
        assert (0, 0) in pairs


def test_corners_connect_and_a_winding_path_is_one_part():
    mask = torch.zeros(1, 9, 9, dtype=torch.bool)
    mask[0].diagonal()[:] = True
    assert len(connected_components(mask).unique()) == 2
    path = torch.zeros(1, 9, 9, dtype=torch.bool)
    path[0, ::2] = True
    for row, column in ((1, 8), (3, 0), (5, 8), (7, 0)):
        path[0, row, column] = True
    assert len(connected_components(path).unique()) == 2


def pixels(cells):
    """Each of the (h, w) cells as 4 x 4 pixels, on which it is then seen again."""
    return cells.repeat_interleave(4, dim=-2).repeat_interleave(4, dim=-1)


def test_every_large_part_is_drawn_and_no_small_one():
    cells = torch.full((1, 20, 30), IGNORE)
    cells[0, 2:8, 3:10] = 1  # 42 cells
    cells[0, 12:18, 15:22] = 1
    cells[0, 18, 21:25] = 1  # belongs to the one above it
    cells[0, 4:6, 25:28] = 1  # 6 cells
    cells[0, 10:, :5] = 2
    labels, samples = pixels(cells).expand(50, -1, -1), torch.linspace(0, 0.999, 50)
    with forbid_host_sync():
        boxes, found = sample_component_boxes(labels, torch.ones(50, dtype=torch.int64), samples, 0.05)
    assert found.all()
    edges = [(*np.argwhere(box)[0], *(np.argwhere(box)[-1] + 1)) for box in boxes.numpy()]
    assert set(edges) == {(8, 12, 32, 40), (48, 60, 76, 100)}
    for box, (top, left, bottom, right) in zip(boxes, edges, strict=True):
        assert box.sum() == (bottom - top) * (right - left)
    assert 20 <= boxes[:, 8, 12].sum() <= 30


def test_each_image_has_a_class_of_its_own():
    cells = torch.zeros(1, 5, 6, dtype=torch.int64)
    cells[0, 2:, 3:] = 1
    boxes, found = sample_component_boxes(pixels(cells).expand(3, -1, -1), torch.tensor([1, 2, 0]), torch.rand(3), 0.05)
    assert found.tolist() == [True, False, True]
    assert torch.equal(boxes[0], pixels(cells)[0] == 1)
    assert not boxes[1].any() and boxes[2].all()


@pytest.mark.parametrize("size", [(513, 513), (49, 66)])
def test_a_crop_that_four_does_not_divide(size):
    labels = torch.zeros(1, *size, dtype=torch.int64)
    labels[0, 13:34, 9:] = 1
    boxes, _ = sample_component_boxes(labels, torch.tensor([1]), torch.rand(1), 0.0)
    (top, left), (bottom, right) = np.argwhere(boxes[0].numpy())[[0, -1]]
    assert abs(top - 13) <= 4 and abs(bottom - 33) <= 4 and abs(left - 9) <= 4 and right == size[1] - 1


@pytest.mark.parametrize("kind", [-1, 0, 3])
def test_a_class_without_a_large_part_has_no_box(kind):
    cells = torch.full((2, 20, 30), IGNORE)
    cells[:, :2, :2] = 3
    boxes, found = sample_component_boxes(pixels(cells), torch.tensor([kind, kind]), torch.rand(2), 0.05)
    assert not found.any() and not boxes.any()


def test_a_part_must_cover_more_than_the_least_area():
    cells = torch.zeros(1, 10, 10, dtype=torch.int64)
    cells[0, :2, :5] = 1
    for area, expected in ((0.0999, True), (0.1, False)):
        assert sample_component_boxes(pixels(cells), torch.tensor([1]), torch.zeros(1), area)[1].item() == expected
