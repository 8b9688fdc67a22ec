import pytest
import torch
from helpers import forbid_host_sync

from wpl_d2.losses import cross_entropy, reduce_term
from wpl_d2.structures import IGNORE, LossTerm


def make(**changes):
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
    term = make(**changes)
    with forbid_host_sync():
        loss = reduce_term(term, norm)
    torch.testing.assert_close(loss.item(), by_loops(term, norm), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("norm", ["valid", "weight_sum"])
def test_weights_of_one_are_no_weights(norm):
    plain = reduce_term(make(weight=None), norm)
    assert reduce_term(make(weight=torch.ones(2, 5, 6)), norm).equal(plain)


def test_a_common_factor_of_the_weights_counts_only_without_their_sum():
    weight = torch.rand(2, 5, 6)
    one, two = make(weight=weight), make(weight=2 * weight)
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
    term = make(**changes)
    loss = reduce_term(term, norm)
    assert loss.item() == 0
    loss.backward()
    assert term.logits.grad.abs().max() == 0


def test_only_pixels_that_count_can_spoil_the_loss():
    spoilt = make().logits.detach().clone()
    spoilt[0, :, 2, 3] = torch.inf
    mask = torch.ones(2, 5, 6)
    assert reduce_term(make(logits=spoilt, mask=mask)).isnan()
    mask[0, 2, 3] = 0
    assert reduce_term(make(logits=spoilt, mask=mask)).isfinite()
    weight = torch.full((2, 5, 6), torch.nan)
    assert reduce_term(make(weight=weight)).isnan()


def test_unknown_norm_is_named():
    with pytest.raises(ValueError, match=r"WEIGHTING\.NORM: 'weights' .* did you mean weight_sum"):
        reduce_term(make(), "weights")
