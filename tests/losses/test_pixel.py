import math

import torch

from wpl_d2.losses import cross_entropy
from wpl_d2.structures import IGNORE


def test_cross_entropy_of_each_pixel_by_its_formula():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    target[0, 0] = IGNORE
    loss = cross_entropy(logits, target)
    assert loss.shape == target.shape
    for b, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(5)).tolist():
        scores, label = logits[b, :, y, x].tolist(), int(target[b, y, x])
        total = sum(math.exp(score) for score in scores)
        expected = 0.0 if label == IGNORE else -math.log(math.exp(scores[label]) / total)
        assert math.isclose(loss[b, y, x], expected, rel_tol=1e-5, abs_tol=1e-6)


def test_cross_entropy_is_float32_under_autocast():
    logits, target = torch.full((1, 2, 1, 1), 1.0), torch.zeros(1, 1, 1).long()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(logits.bfloat16(), target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.item(), math.log(2))
