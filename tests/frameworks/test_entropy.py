import math

import numpy as np
import pytest
import torch

from wpl_d2.frameworks.entropy import entropy, percentiles


def test_entropy_of_known_distributions():
    probability = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0]])
    logits = (probability + 1e-30).log().T.view(1, 3, 1, 3)
    found = entropy(7.0 + logits)
    torch.testing.assert_close(found.flatten(), torch.tensor([1.5 * math.log(2), math.log(3), 0.0]))
    # What is certain beyond all doubt must not become 0 * log(0).
    assert entropy(torch.tensor([1e4, 0.0]).view(1, 2, 1, 1)) == 0
    assert entropy(logits.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("kept", [1.0, 0.4])
def test_percentiles_are_numpys(kept):
    torch.manual_seed(0)
    values, mask = torch.rand(2, 30, 17), torch.rand(2, 30, 17) < kept
    for percent in (0.0, 3.3, 20.0, 80.0, 100.0):
        (found,) = percentiles(values, mask, percent)
        assert found.item() == pytest.approx(np.percentile(values[mask].numpy(), percent), rel=1e-5)
    assert [p.item() for p in percentiles(values, mask, 20.0, 80.0)] == [
        percentiles(values, mask, percent)[0].item() for percent in (20.0, 80.0)
    ]


def test_nothing_lies_on_any_side_of_a_percentile_of_nothing():
    values = torch.rand(1, 3, 3)
    (found,) = percentiles(values, torch.zeros(1, 3, 3, dtype=torch.bool), 50.0)
    assert not (values < found).any() and not (values >= found).any()


def test_one_pixel_is_its_own_percentile():
    mask = torch.tensor([False, True, False])
    assert [p.item() for p in percentiles(torch.tensor([1.0, 2.0, 3.0]), mask, 0.0, 20.0, 100.0)] == [2.0, 2.0, 2.0]
