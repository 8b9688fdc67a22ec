import numpy as np
import pytest
import torch
from scipy import ndimage

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
