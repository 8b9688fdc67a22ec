import math

import pytest
import torch
from helpers import forbid_host_sync

from wpl_d2.losses import cross_entropy, entropy, info_nce, kl_divergence, ohem_mask, reduce_term, squared_distance
from wpl_d2.structures import IGNORE, LossTerm


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


def test_squared_distance_is_that_of_probabilities():
    logits = torch.tensor([0.5, 0.25, 0.25]).log().view(1, 3, 1, 1).bfloat16()
    found = squared_distance(logits, torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1))
    torch.testing.assert_close(found, torch.full((1, 1, 1), 0.5**2 + 2 * 0.25**2), atol=5e-3, rtol=0)


def test_kl_divergence_is_that_from_the_target():
    logits = torch.tensor([0.5, 0.25, 0.25]).log().view(1, 3, 1, 1)
    found = kl_divergence(logits, torch.tensor([0.25, 0.75, 0.0]).view(1, 3, 1, 1))
    torch.testing.assert_close(found.item(), 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.25))


def test_cross_entropy_is_float32_under_autocast():
    logits, target = torch.full((1, 2, 1, 1), 1.0), torch.zeros(1, 1, 1).long()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(logits.bfloat16(), target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.item(), math.log(2))


def test_entropy_of_known_distributions():
    probability = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0]])
    logits = (probability + 1e-30).log().T.view(1, 3, 1, 3)
    found = entropy(7.0 + logits)
    torch.testing.assert_close(found.flatten(), torch.tensor([1.5 * math.log(2), math.log(3), 0.0]))
    # A probability of 0 must not become 0 * log(0).
    assert entropy(torch.tensor([1e4, 0.0]).view(1, 2, 1, 1)) == 0
    assert entropy(logits.bfloat16()).dtype == torch.float32


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


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def example(dtype=torch.float32):
    torch.manual_seed(0)
    negatives = torch.nn.functional.normalize(torch.randn(2, 3, 4, 5), dim=-1)
    return 3 * torch.randn(2, 3, 5), torch.randn(2, 5), negatives.to(dtype)


def test_it_is_the_mean_cross_entropy_of_the_positive():
    anchors, positives, negatives = example()
    found = info_nce(anchors, positives, negatives, temperature=0.5)
    for kind in range(2):
        losses = []
        for number, anchor in enumerate(anchors[kind].tolist()):
            near = math.exp(cosine(anchor, positives[kind].tolist()) / 0.5)
            far = sum(math.exp(cosine(anchor, other) / 0.5) for other in negatives[kind, number].tolist())
            losses.append(-math.log(near / (near + far)))
        assert math.isclose(found[kind].item(), sum(losses) / 3, rel_tol=1e-5)


def test_anchors_alone_get_a_gradient():
    anchors, positives, negatives = example()
    for tensor in (anchors, positives, negatives):
        tensor.requires_grad_()
    info_nce(anchors, positives, negatives, temperature=0.5).sum().backward()
    assert positives.grad is None and negatives.grad is None
    assert anchors.grad.isfinite().all() and (anchors.grad.abs().sum(dim=-1) > 0).all()


def test_mixed_precision_and_float16_negatives_change_little():
    expected = info_nce(*example(), temperature=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(*example(torch.float16), temperature=0.5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0.0)


def make_term(**changes):
    torch.manual_seed(0)
    target = torch.randint(0, 3, (2, 5, 6))
    target[1, :2] = IGNORE
    fields = {
        "name": "loss_unsup",
        "logits": torch.randn(2, 3, 5, 6, requires_grad=True),
        "target": target,
        "pixel_loss": cross_entropy,
        "mask": torch.rand(2, 5, 6) < 0.6,
        "norm": target != IGNORE,
        "weight": torch.rand(2, 5, 6),
    }
    return LossTerm(**fields | changes)


def by_loops(term, norm):
    loss, total, count = cross_entropy(term.logits, term.target).tolist(), 0.0, 0.0
    for b in range(2):
        for y in range(5):
            for x in range(6):
                weight = 1.0 if term.weight is None else float(term.weight[b, y, x])
                total += weight * float(term.mask[b, y, x]) * loss[b][y][x]
                count += float(term.norm[b, y, x]) * (weight if norm == "weight_sum" else 1.0)
    return term.coefficient * total / count


@pytest.mark.parametrize("norm", ["valid", "weight_sum"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weight": None},
        {"coefficient": 0.25},
        {"mask": torch.linspace(0, 1, 60).view(2, 5, 6), "norm": torch.linspace(0, 2, 60).view(2, 5, 6)},
    ],
)
def test_reduction_equals_loops(norm, changes):
    term = make_term(**changes)
    with forbid_host_sync():
        loss = reduce_term(term, norm)
    torch.testing.assert_close(loss.item(), by_loops(term, norm), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("norm", ["valid", "weight_sum"])
def test_weights_of_one_are_no_weights(norm):
    plain = reduce_term(make_term(weight=None), norm)
    assert reduce_term(make_term(weight=torch.ones(2, 5, 6)), norm).equal(plain)


def test_a_common_factor_of_the_weights_counts_only_without_their_sum():
    weight = torch.rand(2, 5, 6)
    one, two = make_term(weight=weight), make_term(weight=2 * weight)
    torch.testing.assert_close(reduce_term(two), 2 * reduce_term(one))
    torch.testing.assert_close(reduce_term(two, "weight_sum"), reduce_term(one, "weight_sum"))


@pytest.mark.parametrize("norm", ["valid", "weight_sum"])
@pytest.mark.parametrize(
    "changes",
    [
        {"target": torch.full((2, 5, 6), IGNORE), "norm": torch.zeros(2, 5, 6)},
        {"norm": torch.zeros(2, 5, 6, dtype=torch.bool)},
        {"mask": torch.zeros(2, 5, 6)},
        {"weight": torch.zeros(2, 5, 6)},
    ],
)
def test_nothing_to_learn_from_is_zero_with_a_gradient(norm, changes):
    term = make_term(**changes)
    loss = reduce_term(term, norm)
    assert loss.item() == 0
    loss.backward()
    assert term.logits.grad.abs().max() == 0


def test_only_pixels_that_count_can_spoil_the_loss():
    spoilt = make_term().logits.detach().clone()
    spoilt[0, :, 2, 3] = torch.inf
    mask = torch.ones(2, 5, 6)
    assert reduce_term(make_term(logits=spoilt, mask=mask)).isnan()
    mask[0, 2, 3] = 0
    assert reduce_term(make_term(logits=spoilt, mask=mask)).isfinite()
    weight = torch.full((2, 5, 6), torch.nan)
    assert reduce_term(make_term(weight=weight)).isnan()


def test_unknown_norm_is_named():
    with pytest.raises(ValueError, match=r"WEIGHTING\.NORM: 'weights' .* did you mean weight_sum"):
        reduce_term(make_term(), "weights")
