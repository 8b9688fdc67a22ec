"""ST++'s step; what it shares with other frameworks is tested here, since its labels come from files."""

import pytest
import torch
from helpers import SMALL, SMALL_DETECTOR, ST_PLUS_PLUS
from steps import losses_of, make

from wpl_d2 import build_framework
from wpl_d2.frameworks import ineffective_keys
from wpl_d2.frameworks.mixing import draw_boxes
from wpl_d2.structures import IGNORE
from wpl_d2.utils.errors import InputError

PLAIN = ["WEIGHTING.ENABLED", False]


def make_with_labels(tree, *opts, weight=1.0):
    framework, batch = make(tree, *ST_PLUS_PLUS, *opts)
    generator = torch.Generator().manual_seed(0)
    for item in batch["unlabeled"]:
        labels = torch.randint(0, 3, item["valid"].shape, generator=generator)
        item["pseudo_labels"] = labels.masked_fill(~item["valid"], IGNORE)
        item["pseudo_weight"] = torch.full(labels.shape, weight)
    return framework, batch


def test_weights_of_one_give_the_plain_method_and_weights_of_zero_remove_its_labels(tree):
    plain, batch = make_with_labels(tree, *PLAIN)
    expected = losses_of(plain, batch)
    weighted, batch = make_with_labels(tree)
    found = losses_of(weighted, batch)
    assert expected["loss_unsup"] > 0
    assert {key: found[key].item() for key in expected} == {key: expected[key].item() for key in expected}
    weighted, batch = make_with_labels(tree, weight=0.0)
    found = losses_of(weighted, batch)
    assert found["loss_unsup"] == 0 and torch.equal(found["loss_sem_seg"], expected["loss_sem_seg"])


def test_alpha_is_the_factor_of_the_pseudo_labels(tree):
    whole, half = (losses_of(*make_with_labels(tree, "FRAMEWORK.ALPHA", alpha)) for alpha in (1.0, 0.5))
    torch.testing.assert_close(2 * half["loss_unsup"], whole["loss_unsup"])
    assert torch.equal(half["loss_sem_seg"], whole["loss_sem_seg"])


def test_a_forward_changes_nothing_but_bn_statistics_and_a_step_fills_the_bank(tree):
    framework, batch = make_with_labels(tree)
    before = {key: value.clone() for key, value in framework.state_dict().items()}
    losses_of(framework, batch)
    changed = {key for key, value in framework.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all("running" in key for key in changed)
    framework.after_step()
    assert framework.weigher.labeled_bank.counts.sum() > 0


def test_cutout_leaves_noise_without_labels(tree):
    framework, batch = make_with_labels(tree, "FRAMEWORK.ST_PLUS_PLUS.CUTOUT.PROB", 1.0)
    items = batch["unlabeled"]
    views, pseudo = framework.make_strong_views(items)[:, 0], framework._stored(items)
    torch.manual_seed(1)
    cut, known = framework._cut_out(views, pseudo)
    torch.manual_seed(1)
    boxes, noise = framework.random_samples(views)
    assert 0.02 * boxes[0].numel() * 0.8 < boxes.sum() < 0.4 * boxes.numel()
    inside = boxes[:, None].expand_as(views)
    assert torch.equal(cut[~inside], views[~inside]) and torch.equal(cut[inside], noise[inside])
    assert noise.min() < 5 and noise.max() > 250
    assert (known.labels[boxes] == IGNORE).all() and torch.equal(known.labels[~boxes], pseudo.labels[~boxes])
    assert not known.valid[boxes].any()


def test_padding_and_cut_out_pixels_have_no_gradient(tree):
    framework, batch = make_with_labels(tree, *PLAIN, "FRAMEWORK.ST_PLUS_PLUS.CUTOUT.PROB", 1.0)
    for item in batch["unlabeled"]:
        item["valid"][:, 40:], item["pseudo_labels"][:, 40:] = False, IGNORE
    torch.manual_seed(0)
    *_, term = framework.terms(batch)[0]
    (gradient,) = torch.autograd.grad(term.pixel_loss(term.logits, term.target).sum(), term.logits)
    without = term.target == IGNORE
    assert without[..., 40:].all() and without[..., :40].any()
    assert (gradient.abs().sum(dim=1)[without] == 0).all()


def test_large_boxes_are_rare_where_the_area_is_drawn_again():
    torch.manual_seed(0)
    once, again = (
        (lambda top, bottom, left, right: ((bottom - top) * (right - left)).float() / 100**2)(
            *draw_boxes(4000, (100, 100), 1.0, (0.02, 0.4), (0.3, 1 / 0.3), redraw_area=redraw)
        )
        for redraw in (False, True)
    )
    assert once.mean().item() == pytest.approx(0.2, abs=0.01)
    # 20,000 draws of the published loop: 0.1404.
    assert again.mean().item() == pytest.approx(0.1404, abs=0.005)
    assert again.max() > 0.35


def test_a_batch_without_stored_labels_is_refused(tree):
    with pytest.raises(InputError, match=r"DATASETS.PSEUDO_LABELS: empty, but STPlusPlus learns stored labels"):
        losses_of(*make(tree, *ST_PLUS_PLUS))


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["WEIGHTING.NORM", "weight_sum"], "WEIGHTING.NORM: weight_sum, but STPlusPlus has one mean of all pixels"),
        (["WEIGHTING.KIND", ("softmatch",)], "WEIGHTING.KIND: softmatch learns in each step"),
        (["WEIGHTING.PER_CLASS", True], "WEIGHTING.PER_CLASS: True, whose means move in each step"),
    ],
)
def test_weights_that_it_cannot_make_are_refused(tree, opts, message):
    with pytest.raises(InputError, match=message):
        build_framework(tree.cfg(*SMALL, *ST_PLUS_PLUS, *opts))


def test_the_first_trainings_bank_is_no_setting_without_effect(tree):
    cfg = tree.cfg(*SMALL, *SMALL_DETECTOR, "FRAMEWORK.NAME", "STPlusPlusLabeler", "DATASETS.UNLABELED", ())
    assert ineffective_keys(cfg, build_framework(cfg)) == []
