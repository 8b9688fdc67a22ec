import pytest
import torch
import torch.nn.functional as F

from wpl_d2.weighting.indices import class_edges, nearest_index


@pytest.mark.parametrize("source, target", [(81, 321), (5, 5), (7, 3), (1, 9), (33, 128)])
def test_nearest_index_is_torchs_nearest_exact(source, target):
    values = torch.rand(1, 1, source, source)
    index = nearest_index(source, target, values.device)
    expected = F.interpolate(values, (target, target), mode="nearest-exact")
    torch.testing.assert_close(values[:, :, index][..., index], expected, rtol=0, atol=0)


@pytest.mark.parametrize("step", [1, 1 << 32])
def test_class_edges_are_the_places_where_classes_begin_and_the_last_one_ends(step):
    keys = torch.tensor([0, 0, 2, 2, 2, 255]) * step + (step > 1)
    assert class_edges(keys, 4, step).tolist() == [0, 2, 2, 5, 5]
    assert class_edges(keys[:0], 4, step).tolist() == [0] * 5
