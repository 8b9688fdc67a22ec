import math

import pytest
import torch
from helpers import AUGSEG, SMALL
from steps import losses_of, make

from wpl_d2 import build_framework
from wpl_d2.frameworks.augseg import InjectionSamples, certainty
from wpl_d2.structures import IGNORE, PseudoLabels


def inject_everything(framework):
    """Let every unlabeled image show nothing but the labeled one of its place."""

    def samples(views):
        everywhere = torch.ones(views[:, 0].shape, dtype=torch.bool)
        return InjectionSamples(torch.arange(len(views)).flip(0), torch.ones(len(views)), everywhere, everywhere)

    framework.random_samples = samples


def unsupervised(framework, batch):
    (term,) = (term for term in framework.terms(batch)[0] if term.name == "loss_unsup")
    return term


def test_the_score_is_the_mean_certainty_of_valid_pixels():
    torch.manual_seed(0)
    logits, valid = 3 * torch.randn(3, 4, 5, 6), torch.rand(3, 5, 6) < 0.7
    valid[2] = False
    found = certainty(logits, PseudoLabels.from_logits(logits, valid))
    for image in range(2):
        scores = []
        for y, x in valid[image].nonzero().tolist():
            p = logits[image, :, y, x].softmax(0)
            scores.append((1 + (p * p.log()).sum() / math.log(4)) * p.max())
        torch.testing.assert_close(found[image], torch.stack(scores).mean())
    assert found[2] == 0
    # Uniform probabilities are not certain at all, a probability of 1 is quite.
    for height, score in ((0.0, 0.0), (1e4, 1.0)):
        logits = torch.zeros(1, 2, 3, 3)
        logits[:, 1] = height
        labels = PseudoLabels.from_logits(logits, torch.ones(1, 3, 3, dtype=torch.bool))
        torch.testing.assert_close(certainty(logits, labels), torch.tensor([score]))


def test_the_teachers_score_decides_about_an_injection(tree):
    framework, batch = make(tree, *AUGSEG)
    truth = torch.stack([item["sem_seg"] for item in batch["labeled"]])
    inject_everything(framework)
    assert torch.equal(unsupervised(framework, batch).target, truth)
    # A quite certain teacher says the same of all pixels.
    with torch.no_grad():
        framework.teacher.sem_seg_head.predictor.weight.zero_()
        framework.teacher.sem_seg_head.predictor.bias.copy_(torch.tensor([0.0, 1e4, 0.0]))
    target = unsupervised(framework, batch).target
    assert {*target.unique().tolist()} <= {1, IGNORE}


def test_without_injection_nothing_labeled_is_mixed_in(tree):
    framework, batch = make(tree, *AUGSEG, "FRAMEWORK.AUGSEG.INJECTION", False)
    inject_everything(framework)
    found = unsupervised(framework, batch).target
    assert torch.equal(found, framework.last_step.pseudo_labels.labels.flip(0))


@pytest.mark.parametrize(("form", "weight"), [("paper", 1.0), ("plus_one", 2.0)])
def test_injected_truth_weighs_as_much_as_a_pseudo_label_can(tree, form, weight):
    framework, batch = make(tree, *AUGSEG, "WEIGHTING.WEIGHT_FORM", form)
    inject_everything(framework)
    term = unsupervised(framework, batch)
    assert (term.weight == weight).all()
    assert torch.equal(term.mask, term.target != IGNORE) and torch.equal(term.norm, term.mask)


def test_injected_pixels_are_never_reliable(tree, monkeypatch):
    framework, batch = make(tree, *AUGSEG, "WEIGHTING.UNLAB_VIEW", "strong")
    make_pseudo_labels = framework.make_pseudo_labels
    monkeypatch.setattr(framework, "make_pseudo_labels", lambda *args: make_pseudo_labels(*args).map(torch.ones_like))
    staged = []
    monkeypatch.setattr(framework.weigher, "stage_reliable", lambda *args: staged.append(args))
    inject_everything(framework)
    framework.terms(batch)
    assert len(staged) == 1 and not staged[0][2].any()


def test_the_student_sees_the_labeled_images_and_the_mixed_ones_in_one_forward(tree, monkeypatch):
    framework, batch = make(tree, *AUGSEG)
    seen = []
    encode = framework.student.encode
    monkeypatch.setattr(framework.student, "encode", lambda images: seen.append(images) or encode(images))
    inject_everything(framework)
    losses_of(framework, batch)
    (images,) = seen
    assert len(images) == 4
    # What is injected is the labeled image as the student gets it.
    assert torch.equal(images[2:], images[:2])


def test_batches_may_differ_and_void_does_not_train(tree):
    framework, batch = make(tree, *AUGSEG, "SOLVER.UNLABELED_IMS_PER_BATCH", 4)
    assert (losses_of(framework, batch)["loss_unsup"] > 0).all()
    for item in batch["labeled"]:
        item["sem_seg"][:] = IGNORE
    inject_everything(framework)
    losses = losses_of(framework, batch)
    assert losses["loss_unsup"] == 0 and losses["loss_sem_seg"] == 0
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in framework.student.parameters() if p.grad is not None)


def test_a_weighted_training_mixes_as_its_plain_twin(tree):
    targets = []
    for enabled in (True, False):
        framework, batch = make(tree, *AUGSEG, "WEIGHTING.ENABLED", enabled)
        torch.manual_seed(5)
        targets.append(unsupervised(framework, batch).target)
    assert torch.equal(*targets)


def test_another_number_of_views_is_refused(tree):
    cfg = tree.cfg(*SMALL, *AUGSEG, "INPUT.STRONG.VIEWS", 2)
    with pytest.raises(ValueError, match=r"INPUT\.STRONG\.VIEWS: 2, but AugSeg needs 1; set it to that"):
        build_framework(cfg)
