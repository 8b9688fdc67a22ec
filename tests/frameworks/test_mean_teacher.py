import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import AUGSEG, SMALL, U2PL
from steps import losses_of, make

from wpl_d2 import build_framework
from wpl_d2.engine.solver import build_optimizer
from wpl_d2.frameworks.mixing import cutmix_masks
from wpl_d2.losses import reduce_term


@pytest.mark.parametrize("host", [[], AUGSEG, U2PL], ids=["MeanTeacher", "AugSeg", "U2PL"])
def test_the_teacher_sees_all_images_in_one_forward(tree, monkeypatch, host):
    framework, batch = make(tree, *host, "WEIGHTING.LABELED_FROM", "teacher")
    labeled = framework.teacher_forward(batch["labeled"]).output
    sizes, staged = [], []
    encode, stage = framework.teacher.encode, framework.weigher.stage_labeled

    def encode_and_note(images):
        if not framework.teacher.training:  # U2PL's further one moves BN statistics
            sizes.append(len(images))
        return encode(images)

    monkeypatch.setattr(framework.teacher, "encode", encode_and_note)
    monkeypatch.setattr(framework.weigher, "stage_labeled", lambda *args: staged.append(args) or stage(*args))
    losses_of(framework, batch)
    assert sizes == [4]
    embedding, logits, target = staged[0]
    torch.testing.assert_close(embedding, labeled.embedding, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(logits, labeled.logits, rtol=1e-3, atol=1e-4)
    assert torch.equal(target, torch.stack([item["sem_seg"] for item in batch["labeled"]]))


def reference(framework, batch):
    """The mean teacher's losses, written again: one image and one mix at a time."""
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    mean, std = framework.student.pixel_mean, framework.student.pixel_std
    with torch.no_grad():
        weak = torch.stack([(item["image"].float() - mean) / std for item in unlabeled])
        logits = framework.teacher.decode(framework.teacher.encode(weak), weak.shape[-2:]).logits
    torch.manual_seed(5)
    masks = cutmix_masks(len(unlabeled), weak.shape[-2:], **vars(framework.random_samples))
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
        framework.after_step()
    assert found["loss_unsup"] > 0


def test_teacher_copies_through_the_burn_in_and_then_averages(tree):
    framework, batch = make(tree, "FRAMEWORK.BURN_IN", 2, "FRAMEWORK.EMA_DECAY", 0.9)
    name = "sem_seg_head.predictor.weight"
    student, teacher = (dict(model.named_parameters())[name] for model in (framework.student, framework.teacher))
    for iteration in range(3):
        framework.iteration = iteration
        assert ("loss_unsup" in losses_of(framework, batch)) == (iteration >= 2)
        with torch.no_grad():
            student += 1.0
        framework.after_step()
        assert torch.equal(student, teacher)
    framework.iteration = 3
    before = teacher.clone()
    with torch.no_grad():
        student += 1.0
    framework.after_step()
    torch.testing.assert_close(teacher, before + 0.5)  # decay is min(1 - 1 / (1 + 1), 0.9)
    assert not any(parameter.requires_grad for parameter in framework.teacher.parameters())


def test_without_decay_the_labels_are_those_of_the_student_that_the_last_step_left(tree):
    framework, batch = make(tree, "FRAMEWORK.EMA_DECAY", 0.0, "WEIGHTING.ENABLED", False)
    optimizer = torch.optim.SGD(framework.student.parameters(), lr=0.01)
    for iteration in range(3):
        framework.iteration = iteration
        left = copy.deepcopy(framework.student).eval()
        losses = losses_of(framework, batch)
        weak = framework.images(batch["unlabeled"], "image")
        with torch.no_grad():
            expected = left.decode(left.encode(weak), weak.shape[-2:]).logits.softmax(dim=1).argmax(dim=1)
        pseudo = framework.last_step.pseudo_labels
        assert torch.equal(pseudo.labels[pseudo.valid], expected[pseudo.valid])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        framework.after_step()
        student, teacher = framework.student.state_dict(), framework.teacher.state_dict()
        assert all(torch.equal(value, student[key]) for key, value in teacher.items())
        assert not torch.equal(student["sem_seg_head.predictor.weight"], left.sem_seg_head.predictor.weight)


def test_half_the_rate_and_twice_the_decay_are_the_halved_losses_of_unimatchs_fixmatch(tree):
    left = []
    for factor, rate, decay in ((0.5, 0.02, 0.01), (1.0, 0.01, 0.02)):
        solver = ["SOLVER.BASE_LR", rate, "SOLVER.WEIGHT_DECAY", decay]
        framework, batch = make(tree, "FRAMEWORK.EMA_DECAY", 0.0, "WEIGHTING.ENABLED", False)
        optimizer = build_optimizer(tree.cfg(*SMALL, *solver), framework.student)
        for _ in range(3):
            optimizer.zero_grad()
            (factor * sum(losses_of(framework, batch).values())).backward()
            optimizer.step()
            framework.after_step()
        left.append(framework.student.state_dict())
    torch.testing.assert_close(left[0], left[1], rtol=1e-3, atol=1e-4)


def test_several_strong_views_share_the_coefficient(tree):
    framework, batch = make(tree, "INPUT.STRONG.VIEWS", 2, "FRAMEWORK.ALPHA", 0.5)
    torch.manual_seed(5)
    terms = [term for term in framework.terms(batch)[0] if term.name == "loss_unsup"]
    assert [term.coefficient for term in terms] == [0.25, 0.25]
    views = torch.stack([reduce_term(term) for term in terms])
    assert (views > 0).all() and views[0] != views[1]
    torch.testing.assert_close(losses_of(framework, batch)["loss_unsup"], views.sum())


def test_teacher_stays_in_evaluation_mode(tree):
    framework, _ = make(tree)
    framework.train()
    assert framework.student.training and not framework.teacher.training


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["FRAMEWORK.NAME", "MeanTeachr"], "did you mean MeanTeacher"),
        (["FRAMEWORK.NAME", "CFCG"], "CFCG cannot be trained, since its equations could not be read"),
        (["RPPI.ENABLED", True], "set MODEL.DETECTOR.MODE shared"),
        (["WEIGHTING.NORM", "valdi"], "did you mean valid"),
        (["WEIGHTING.UNLAB_VIEW", "strng"], "did you mean strong"),
        (["INPUT.STRONG.VIEWS", 0], "learns from strong views; set it to 1"),
        (["FRAMEWORK.EMA_BUFFERS", "none"], "would never move; set ema or copy"),
        (["INPUT.PASTE.PROB", 0.5], r"INPUT\.PASTE\.PROB: 0\.5, but MeanTeacher pastes nothing; set it to 0"),
        (["MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM", 8], "trains no representation; set it to 0"),
    ],
)
def test_wrong_settings_name_the_mend(tree, opts, message):
    cfg = tree.cfg(*SMALL, *opts)
    with pytest.raises(ValueError, match=message):
        build_framework(cfg)
