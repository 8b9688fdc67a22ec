"""What holds for every framework that learns from pseudo-labels."""

import pytest
import torch
from helpers import FRAMEWORKS, SMALL, SMALL_DETECTOR
from steps import fill_bank, fill_bank_for_one_class, losses_of, make

from wpl_d2 import build_framework
from wpl_d2.structures import IGNORE
from wpl_d2.weighting import PixelWeigher

UNLABELED = {
    "AEL": {"loss_unsup"},
    "AllSpark": {"loss_unsup"},
    "AugSeg": {"loss_unsup"},
    "CPS": {"loss_unsup"},
    "CorrMatch": {"loss_unsup", "loss_perturbed", "loss_propagated"},
    "DAW": {"loss_unsup", "loss_perturbed"},
    "MeanTeacher": {"loss_unsup"},
    "PrevMatch": {"loss_unsup", "loss_perturbed"},
    "PC2Seg": {"loss_unsup"},
    "PSMT": {"loss_unsup"},
    "PCR": {"loss_unsup"},
    "PseudoSeg": {"loss_unsup"},
    "SemiVL": {"loss_unsup", "loss_perturbed", "loss_guidance"},
    "U2PL": {"loss_unsup"},
    "UniMatch": {"loss_unsup", "loss_perturbed"},
    "UniMatchV2": {"loss_unsup"},
}
# What weights do not change.
OTHER = {
    "AEL": {"loss_sem_seg", "loss_consistency"},
    "CorrMatch": {"loss_sem_seg", "loss_correlation", "loss_kl"},
    "PC2Seg": {"loss_sem_seg", "loss_contrast"},
    "PCR": {"loss_sem_seg", "loss_prototypes"},
    "PseudoSeg": {"loss_sem_seg", "loss_cam", "loss_image_labels"},
    "U2PL": {"loss_sem_seg", "loss_contrast"},
}
# Whose BN statistics a forward moves.
MOVED = {
    "AEL": ("student.", "teacher."),
    "CPS": ("student.", "second.student."),
    "PSMT": ("student.", "teacher."),
    "U2PL": ("student.", "teacher."),
}
# Under which all that is learned on unlabeled images is pseudo-labels.
NOTHING_KNOWN = {"AugSeg": ["FRAMEWORK.AUGSEG.INJECTION", False]}

pytestmark = pytest.mark.parametrize("name", FRAMEWORKS)


def other_losses(name):
    return OTHER.get(name, {"loss_sem_seg"})


def unlabeled_losses(name, losses):
    assert UNLABELED[name] == losses.keys() - other_losses(name)
    return torch.stack([losses[key] for key in UNLABELED[name]])


def train_on(losses, framework):
    """Backward; every gradient must be finite."""
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in framework.student.parameters() if p.grad is not None)


def test_weights_of_one_give_the_host(tree, name):
    weighted, batch = make(tree, *FRAMEWORKS[name])
    plain, _ = make(tree, *FRAMEWORKS[name], "WEIGHTING.ENABLED", False)
    plain.load_state_dict(weighted.state_dict(), strict=False)
    # Nothing is in the bank, so every weight is neutral.
    found, expected = losses_of(weighted, batch), losses_of(plain, batch)
    assert (unlabeled_losses(name, expected) > 0).all()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []


def test_weights_of_zero_remove_the_weighted_terms(tree, name, monkeypatch):
    framework, batch = make(tree, *FRAMEWORKS[name], *NOTHING_KNOWN.get(name, []))
    monkeypatch.setattr(PixelWeigher, "weight", lambda self, evidence: torch.zeros(evidence.pseudo.labels.shape))
    found = losses_of(framework, batch)
    assert (unlabeled_losses(name, found) == 0).all()
    assert found["loss_sem_seg"] > 0


def test_alpha_is_the_factor_of_the_unlabeled_losses(tree, name):
    framework, batch = make(tree, *FRAMEWORKS[name])
    full = losses_of(framework, batch)
    half, _ = make(tree, *FRAMEWORKS[name], "FRAMEWORK.ALPHA", 0.5)
    found = losses_of(half, batch)
    torch.testing.assert_close(2 * unlabeled_losses(name, found), unlabeled_losses(name, full))
    assert torch.equal(found["loss_sem_seg"], full["loss_sem_seg"])


def test_the_bank_lowers_the_losses(tree, name):
    framework, batch = make(tree, *FRAMEWORKS[name])
    neutral = unlabeled_losses(name, losses_of(framework, batch))
    fill_bank(framework, batch)
    assert framework.weigher.labeled_bank.counts.sum() > 0
    assert (unlabeled_losses(name, losses_of(framework, batch)) < neutral).all()


def test_a_class_that_is_not_in_the_bank_keeps_its_host(tree, name):
    framework, batch = make(tree, *FRAMEWORKS[name])
    present = fill_bank_for_one_class(framework, batch)
    losses_of(framework, batch)
    pseudo = framework.last_step.pseudo_labels
    assert (pseudo.weight[pseudo.labels == present] < 1).any()
    assert (pseudo.weight[pseudo.labels != present] == 1).all()


@pytest.mark.parametrize("view", ["weak", "strong"])
def test_reliable_pixels_reach_the_unlabeled_bank(tree, name, view, monkeypatch):
    framework, batch = make(tree, *FRAMEWORKS[name], *SMALL_DETECTOR, "WEIGHTING.UNLAB_VIEW", view)
    everywhere = torch.tensor([[0.0, 0.0, 64.0, 48.0]])

    def boxes_of_every_class(instances, min_score):
        return [(everywhere.repeat(3, 1), torch.arange(3)) for _ in instances]

    monkeypatch.setattr("wpl_d2.weighting.weigher.class_boxes", boxes_of_every_class)
    losses_of(framework, batch)
    assert framework.weigher.unlabeled_bank.counts.sum() == 0
    framework.after_step()
    assert framework.weigher.unlabeled_bank.counts.sum() > 0


def test_forward_changes_nothing_but_bn_statistics(tree, name):
    framework, batch = make(tree, *FRAMEWORKS[name])
    before = {key: value.clone() for key, value in framework.state_dict().items()}
    losses_of(framework, batch)
    changed = {key for key, value in framework.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(
        key.startswith(MOVED.get(name, "student.")) and ("running_" in key or "num_batches" in key) for key in changed
    )


def test_padding_does_not_train(tree, name):
    framework, batch = make(tree, *FRAMEWORKS[name], *NOTHING_KNOWN.get(name, []))
    for item in batch["unlabeled"]:
        item["valid"][:] = False
    losses = losses_of(framework, batch)
    assert (unlabeled_losses(name, losses) == 0).all()
    train_on(losses, framework)


def test_no_pixel_is_confident(tree, name):
    if name == "U2PL":
        pytest.skip("its pixels are kept by their entropy; see test_u2pl.py")
    framework, batch = make(tree, *FRAMEWORKS[name])
    framework.threshold = torch.tensor(1.5)  # AugSeg's patches of labeled images have a confidence of 1
    framework.guidance_conf = 1.5  # SemiVL's
    losses = losses_of(framework, batch)
    assert (unlabeled_losses(name, losses) == 0).all()
    train_on(losses, framework)


def test_labels_that_are_void_everywhere_give_zero(tree, name):
    framework, batch = make(tree, *FRAMEWORKS[name])
    for item in batch["labeled"]:
        for image in (item, item.get("paste", item)):
            image["sem_seg"][:] = IGNORE
    losses = losses_of(framework, batch)
    assert losses["loss_sem_seg"] == 0
    train_on(losses, framework)
    framework.after_step()
    assert framework.weigher.labeled_bank.counts.sum() == 0


def test_one_image_of_two_classes(tree, name):
    cfg = tree.cfg(*SMALL, *FRAMEWORKS[name])
    _, batch = make(tree, *FRAMEWORKS[name])
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    framework = build_framework(cfg)
    single = {stream: items[:1] for stream, items in batch.items()}
    single["labeled"][0]["sem_seg"][single["labeled"][0]["sem_seg"] == 2] = IGNORE
    losses = losses_of(framework, single)
    # U2PL has no negatives yet.
    assert all(loss > 0 for key, loss in losses.items() if key != "loss_contrast")
    train_on(losses, framework)
    fill_bank(framework, single)
    assert framework.weigher.labeled_bank.counts.sum() > 0
    train_on(losses_of(framework, single), framework)


def test_unlabeled_images_wait_for_the_end_of_the_burn_in(tree, name):
    framework, batch = make(tree, *FRAMEWORKS[name], "FRAMEWORK.BURN_IN", 1)
    losses = losses_of(framework, batch).keys()
    assert "loss_sem_seg" in losses <= other_losses(name)
    framework.iteration = 1
    assert (unlabeled_losses(name, losses_of(framework, batch)) > 0).all()
