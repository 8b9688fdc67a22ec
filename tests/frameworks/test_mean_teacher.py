import pytest
import torch
import torch.nn.functional as F
from detectron2.utils.events import EventStorage
from helpers import SMALL, SMALL_DETECTOR, forbid_host_sync

from wpl_d2 import build_framework
from wpl_d2.data import build_train_loader
from wpl_d2.data.augmentation import cutmix_masks


def make(tree, *opts):
    cfg = tree.cfg(*SMALL, *opts)
    torch.manual_seed(0)
    return build_framework(cfg), next(build_train_loader(cfg))


def losses_of(framework, batch):
    torch.manual_seed(5)
    with EventStorage():
        return framework(batch)


def fill_bank(framework, batch, steps=3):
    for _ in range(steps):
        losses_of(framework, batch)
        framework.commit()


def reference(framework, batch):
    """The mean teacher's losses, written again: one image and one mix at a time."""
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    mean, std = framework.student.pixel_mean, framework.student.pixel_std
    with torch.no_grad():
        weak = torch.stack([(item["image"].float() - mean) / std for item in unlabeled])
        logits = framework.teacher.decode(framework.teacher.encode(weak), weak.shape[-2:]).logits
    torch.manual_seed(5)
    masks = cutmix_masks(len(unlabeled), weak.shape[-2:], **framework.cutmix)
    images = [(item["image"].float() - mean) / std for item in labeled]
    targets = []
    for i, item in enumerate(unlabeled):
        j = (i - 1) % len(unlabeled)
        strong = torch.where(masks[i], unlabeled[j]["strong"][0], item["strong"][0])
        images.append((strong.float() - mean) / std)
        prob = torch.where(masks[i], logits[j].softmax(0), logits[i].softmax(0))
        valid = torch.where(masks[i], unlabeled[j]["valid"], item["valid"])
        targets.append((prob.max(0).indices, prob.max(0).values, valid))
    student = framework.student
    out = student.decode(student.encode(torch.stack(images)), weak.shape[-2:]).logits
    known, supervised = 0, 0.0
    for i, item in enumerate(labeled):
        target = item["sem_seg"][None]
        supervised = supervised + F.cross_entropy(out[i][None], target, ignore_index=255, reduction="sum")
        known += int((target != 255).sum())
    total, count = 0.0, 0
    for i, (label, confidence, valid) in enumerate(targets):
        loss = F.cross_entropy(out[len(labeled) + i][None], label[None], reduction="none")[0]
        total = total + loss[(confidence >= framework.threshold) & valid].sum()
        count += int(valid.sum())
    return {"loss_sem_seg": supervised / known, "loss_unsup": total / count}


def test_losses_are_those_of_the_recipe_written_plainly(tree):
    framework, batch = make(tree, "WEIGHTING.ENABLED", False)
    optimizer = torch.optim.SGD(framework.student.parameters(), lr=0.01)
    for iteration in range(5):
        framework.iteration = iteration
        before = {key: value.clone() for key, value in framework.state_dict().items()}
        expected = reference(framework, batch)
        framework.load_state_dict(before)  # the reference's forward moved BN statistics
        found = losses_of(framework, batch)
        assert found.keys() == expected.keys()
        for name in found:
            torch.testing.assert_close(found[name], expected[name], rtol=2e-4, atol=1e-6)
        optimizer.zero_grad()
        sum(found.values()).backward()
        optimizer.step()
        framework.commit()
    assert found["loss_unsup"] > 0


def test_weights_of_one_give_the_host(tree):
    weighted, batch = make(tree)
    plain, _ = make(tree, "WEIGHTING.ENABLED", False)
    plain.load_state_dict(weighted.state_dict(), strict=False)
    # Nothing is in the bank, so every weight is neutral.
    for name, loss in losses_of(plain, batch).items():
        assert torch.equal(loss, losses_of(weighted, batch)[name])


def test_weights_of_zero_remove_the_weighted_term(tree, monkeypatch):
    framework, batch = make(tree)
    assert losses_of(framework, batch)["loss_unsup"] > 0
    monkeypatch.setattr(framework.weigher, "weight", lambda embedding, labels: torch.zeros(labels.shape))
    found = losses_of(framework, batch)
    assert found["loss_unsup"] == 0
    assert found["loss_sem_seg"] > 0


def test_the_bank_changes_the_loss(tree):
    framework, batch = make(tree)
    neutral = losses_of(framework, batch)["loss_unsup"]
    fill_bank(framework, batch)
    assert framework.weigher.labeled_bank.counts.sum() > 0
    assert losses_of(framework, batch)["loss_unsup"] < neutral


@pytest.mark.parametrize("view", ["weak", "strong"])
def test_reliable_pixels_reach_the_unlabeled_bank(tree, view, monkeypatch):
    framework, batch = make(tree, *SMALL_DETECTOR, "WEIGHTING.UNLAB_VIEW", view)
    everywhere = torch.tensor([[0.0, 0.0, 64.0, 48.0]])

    def boxes_of_every_class(instances, min_score):
        return [(everywhere.repeat(3, 1), torch.arange(3)) for _ in instances]

    monkeypatch.setattr(framework.teacher, "class_boxes", boxes_of_every_class)
    losses_of(framework, batch)
    assert framework.weigher.unlabeled_bank.counts.sum() == 0
    framework.commit()
    assert framework.weigher.unlabeled_bank.counts.sum() > 0


def test_forward_changes_nothing_but_the_students_bn_statistics(tree):
    framework, batch = make(tree)
    before = {key: value.clone() for key, value in framework.state_dict().items()}
    losses_of(framework, batch)
    changed = {key for key, value in framework.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.startswith("student.") and ("running_" in key or "num_batches" in key) for key in changed)


def test_padding_does_not_train(tree):
    framework, batch = make(tree)
    for item in batch["unlabeled"]:
        item["valid"][:] = False
    losses = losses_of(framework, batch)
    assert losses["loss_unsup"] == 0
    assert losses["loss_unsup"].isfinite()


def test_labels_that_are_void_everywhere_give_zero(tree):
    framework, batch = make(tree)
    for item in batch["labeled"]:
        item["sem_seg"][:] = 255
    losses = losses_of(framework, batch)
    assert losses["loss_sem_seg"] == 0
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in framework.student.parameters() if p.grad is not None)


def test_teacher_copies_through_the_burn_in_and_then_averages(tree):
    framework, batch = make(tree, "FRAMEWORK.BURN_IN", 2, "FRAMEWORK.EMA_DECAY", 0.9)
    name = "sem_seg_head.predictor.weight"
    student, teacher = (dict(model.named_parameters())[name] for model in (framework.student, framework.teacher))
    for iteration in range(3):
        framework.iteration = iteration
        assert ("loss_unsup" in losses_of(framework, batch)) == (iteration >= 2)
        with torch.no_grad():
            student += 1.0
        framework.commit()
        assert torch.equal(student, teacher)
    framework.iteration = 3
    before = teacher.clone()
    with torch.no_grad():
        student += 1.0
    framework.commit()
    torch.testing.assert_close(teacher, before + 0.5)  # decay is min(1 - 1 / (1 + 1), 0.9)
    assert not any(parameter.requires_grad for parameter in framework.teacher.parameters())


def test_several_strong_views_share_the_coefficient(tree):
    framework, batch = make(tree, "INPUT.STRONG.VIEWS", 2, "FRAMEWORK.ALPHA", 0.5)
    assert {"loss_unsup_0", "loss_unsup_1"} <= losses_of(framework, batch).keys()
    terms, _ = framework.terms(batch, framework.label(batch))
    assert [term.coefficient for term in terms if term.weight is not None] == [0.25, 0.25]


def test_step_without_detector_never_waits_for_the_device(tree):
    framework, batch = make(tree)
    fill_bank(framework, batch, steps=1)
    with forbid_host_sync():
        losses = losses_of(framework, batch)
        sum(losses.values()).backward()
        framework.commit()


def test_teacher_stays_in_evaluation_mode(tree):
    framework, _ = make(tree)
    framework.train()
    assert framework.student.training and not framework.teacher.training


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["FRAMEWORK.NAME", "MeanTeachr"], "did you mean MeanTeacher"),
        (["RPPI.ENABLED", True], "set MODEL.DETECTOR.MODE shared"),
        (["WEIGHTING.NORM", "valdi"], "did you mean valid"),
        (["WEIGHTING.UNLAB_VIEW", "strng"], "did you mean strong"),
    ],
)
def test_wrong_settings_name_the_mend(tree, opts, message):
    cfg = tree.cfg(*SMALL, *opts)
    with pytest.raises(ValueError, match=message):
        build_framework(cfg)
