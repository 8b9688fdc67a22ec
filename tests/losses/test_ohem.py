import pytest
import torch
from helpers import forbid_host_sync

from wpl_d2.losses import ohem_mask
from wpl_d2.structures import IGNORE


def mask_by_sorting(logits, target, threshold, min_kept):
    valid = target != IGNORE
    probability = logits.softmax(1).gather(1, target.masked_fill(~valid, 0).unsqueeze(1)).squeeze(1)
    ranked = sorted(probability[valid].tolist())
    if len(ranked) < min_kept:
        return valid
    return valid & (probability <= max(threshold, ranked[min_kept - 1]) + 1e-6)


@pytest.mark.parametrize("min_kept", [1, 20, 60, 10**6])
@pytest.mark.parametrize("scale", [0.1, 3.0, 9.0])
def test_ohem_equals_sorting(min_kept, scale):
    torch.manual_seed(min_kept)
    logits, target = torch.randn(2, 4, 6, 7) * scale, torch.randint(0, 4, (2, 6, 7))
    target[torch.rand(target.shape) < 0.2] = IGNORE
    with forbid_host_sync():
        mask = ohem_mask(logits, target, 0.7, min_kept=min_kept)
    assert mask.equal(mask_by_sorting(logits, target, 0.7, min_kept))


def test_easy_pixels_are_dropped_down_to_min_kept():
    logits = torch.stack([torch.tensor([5.0, 6, 7, 8, 0, 9]), torch.zeros(6)]).view(1, 2, 1, 6)
    target = torch.tensor([[[0, 0, 0, 0, 0, IGNORE]]])
    kept = [ohem_mask(logits, target, min_kept=n).flatten().tolist() for n in (1, 3, 5, 6)]
    assert kept[0] == [False, False, False, False, True, False]
    assert kept[1] == [True, True, False, False, True, False]
    assert kept[2] == kept[3] == [True, True, True, True, True, False]


def test_no_target_at_all_keeps_nothing():
    assert not ohem_mask(torch.randn(1, 3, 4, 4), torch.full((1, 4, 4), IGNORE), min_kept=5).any()


def test_bad_min_kept_is_named():
    with pytest.raises(ValueError, match="min_kept is 0"):
        ohem_mask(torch.randn(1, 3, 4, 4), torch.zeros(1, 4, 4).long(), min_kept=0)
