import pytest
import torch
from helpers import PSEUDOSEG, SMALL
from steps import losses_of, make

from wpl_d2.frameworks.pseudoseg import fuse, shown_classes
from wpl_d2.structures import IGNORE
from wpl_d2.utils.errors import InputError


def test_fused_probabilities_do_not_depend_on_the_common_scale():
    torch.manual_seed(0)
    first, second = torch.randn(2, 2, 4, 3, 5)
    expected = fuse(first, second, 0.5).softmax(1)
    torch.testing.assert_close(fuse(10 * first, 10 * second, 0.5).softmax(1), expected)
    torch.testing.assert_close(fuse(second, first, 0.5).softmax(1), expected)
    # The less sure of the two counts less.
    assert torch.equal(fuse(first, 0.01 * second, 1.0).argmax(1), first.argmax(1))
    assert expected.amax(1).mean() > fuse(first, second, 1.0).softmax(1).amax(1).mean()
    # Neither an overflow nor a probability of 0.
    assert fuse(torch.full((1, 2, 1, 1), 60.0), torch.tensor([-90.0, 90]).view(1, 2, 1, 1), 0.01).isfinite().all()


def test_shown_classes_are_those_of_the_mask_but_the_background():
    target = torch.tensor([[[0, 0], [3, 1]], [[IGNORE, 0], [0, 0]], [[2, IGNORE], [2, 2]]])
    assert shown_classes(target, 4).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_what_is_cut_out_neither_trains_nor_is_seen(tree, monkeypatch):
    framework, batch = make(tree, *PSEUDOSEG, "WEIGHTING.ENABLED", False)
    boxes = torch.zeros(len(batch["unlabeled"]), 48, 64, dtype=torch.bool)
    boxes[:, 10:30, 20:50] = True
    monkeypatch.setattr(framework, "random_samples", lambda views: boxes)
    start = {key: value.clone() for key, value in framework.state_dict().items()}
    expected = losses_of(framework, batch)["loss_unsup"]
    for item in batch["unlabeled"]:
        item["strong"][:, :, 10:30, 20:50] = 255
    framework.load_state_dict(start)
    assert torch.equal(losses_of(framework, batch)["loss_unsup"], expected)
    (term,) = framework._unlabeled_terms(batch["unlabeled"])
    assert not term.mask[:, 10:30, 20:50].any() and not term.norm[:, 10:30, 20:50].any()
    assert torch.equal(term.norm, framework.stack(batch["unlabeled"], "valid") & ~boxes)
    torch.testing.assert_close(term.target.sum(1), torch.ones(boxes.shape))
    assert not term.target.requires_grad


def test_a_forward_in_evaluation_mode_leaves_the_training_mode(tree):
    framework, batch = make(tree, *PSEUDOSEG)
    losses_of(framework, batch)
    assert all(module.training for module in framework.student.modules())


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["FRAMEWORK.NAME", "PseudoSeg"], "NAME: '', but PseudoSeg trains SelfAttentionCAM; set it to 'SelfAtt"),
        (PSEUDOSEG[2:], "NAME: 'SelfAttentionCAM', but MeanTeacher trains none; set it to ''"),
        ([*PSEUDOSEG, "PSEUDO_LABEL.REFINE", "prototype"], "prototype corrects classes, .* set it to none"),
        ([*PSEUDOSEG, "INPUT.STRONG.VIEWS", 2], "VIEWS: 2, but PseudoSeg needs 1"),
    ],
)
def test_configs_that_it_cannot_use_are_refused(tree, opts, words):
    with pytest.raises(InputError, match=words):
        make(tree, *SMALL, *opts)
