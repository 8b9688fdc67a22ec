import pytest
import torch
from helpers import SMALL, UNIMATCH
from steps import losses_of, make

from wpl_d2 import build_framework


def test_coefficients_are_the_published_ones(tree):
    framework, batch = make(tree, *UNIMATCH)
    terms, _ = framework.terms(batch)
    found = [(term.name, term.coefficient) for term in terms]
    assert found == [("loss_sem_seg", 0.5), ("loss_perturbed", 0.25), ("loss_unsup", 0.125), ("loss_unsup", 0.125)]


def test_features_lose_whole_channels_each_image_its_own(tree):
    framework, _ = make(tree, *UNIMATCH)
    features = {"fine": torch.ones(3, 64, 3, 4), "coarse": torch.ones(3, 64, 2, 2)}
    torch.manual_seed(0)
    doubled = framework._append_perturbed(features)
    for name, clean in features.items():
        assert torch.equal(doubled[name][:3], clean)
        dropped = doubled[name][3:]
        assert len(dropped) == 3
        assert torch.equal(dropped, dropped[..., :1, :1].expand_as(dropped))
        assert set(dropped.unique().tolist()) == {0.0, 2.0}
        kept = dropped[:, :, 0, 0] > 0
        assert 0.3 < kept.float().mean() < 0.7
        assert not torch.equal(kept[0], kept[1])
    assert not torch.equal(*(doubled[name][3:, :, 0, 0] for name in features))


def test_dropped_channels_reach_the_perturbed_stream_alone(tree):
    framework, batch = make(tree, *UNIMATCH)
    # With fixed BN statistics no image sees another.
    framework.eval()
    terms, banks = {}, {}
    for factor in (0.0, 1.0):
        framework.feature_dropout.forward = lambda features, by=factor: features * by
        torch.manual_seed(0)
        terms[factor] = framework.terms(batch)[0]
        framework.after_step()
        banks[factor] = framework.weigher.labeled_bank.ring.clone()
        framework.weigher.labeled_bank.pushed.zero_()
    (labeled, dropped, *strong), (same, kept, *again) = terms.values()
    assert all(torch.equal(a.logits, b.logits) for a, b in zip([labeled, *strong], [same, *again], strict=True))
    assert torch.equal(*banks.values()) and banks[0.0].any()
    assert torch.equal(dropped.target, kept.target) and not torch.equal(dropped.logits, kept.logits)


def test_the_student_labels_in_the_forward_that_it_learns_from(tree, monkeypatch):
    framework, batch = make(tree, *UNIMATCH)
    sizes = []
    encode = framework.student.encode
    monkeypatch.setattr(framework.student, "encode", lambda images: sizes.append(len(images)) or encode(images))
    losses_of(framework, batch)
    assert sizes == [4, 4]  # labeled and weak views; two strong views
    pseudo = framework.last_step.pseudo_labels
    assert not pseudo.confidence.requires_grad and not pseudo.weight.requires_grad
    assert framework.teacher is None and list(framework.eval_models()) == ["student"]


def test_the_two_strong_views_are_mixed_apart(tree):
    framework, batch = make(tree, *UNIMATCH)
    torch.manual_seed(5)
    _, perturbed, first, second = framework.terms(batch)[0]
    labels = framework.last_step.pseudo_labels.labels
    assert torch.equal(perturbed.target, labels)
    assert not torch.equal(first.target, labels)
    assert not torch.equal(first.target, second.target)


def test_another_number_of_views_is_refused(tree):
    cfg = tree.cfg(*SMALL, "FRAMEWORK.NAME", "UniMatch")
    with pytest.raises(ValueError, match=r"INPUT\.STRONG\.VIEWS: 1, but UniMatch needs 2; set it to that"):
        build_framework(cfg)
