import numpy as np
import pytest
import torch
from helpers import SMALL, U2PL
from steps import losses_of, make

from wpl_d2 import build_framework
from wpl_d2.frameworks.u2pl.u2pl import percentiles
from wpl_d2.losses import cross_entropy, reduce_term
from wpl_d2.structures import IGNORE

PLAIN = [*U2PL, "WEIGHTING.ENABLED", False]


def watch(monkeypatch, framework):
    """What the teacher sees, and in which mode."""
    seen, encode = [], framework.teacher.encode

    def watched(images):
        seen.append((framework.teacher.training, images))
        return encode(images)

    monkeypatch.setattr(framework.teacher, "encode", watched)
    return seen


def test_the_teacher_labels_in_evaluation_and_judges_the_mixed_batch_in_training(tree, monkeypatch):
    framework, batch = make(tree, *PLAIN)
    seen = watch(monkeypatch, framework)
    inputs = []
    encode = framework.student.encode
    monkeypatch.setattr(framework.student, "encode", lambda images: inputs.append(images) or encode(images))
    losses_of(framework, batch)
    (labels_in_training, weak), (judges_in_training, mixed) = seen
    assert not labels_in_training and torch.equal(weak, framework.images(batch["unlabeled"], "image"))
    assert judges_in_training and torch.equal(mixed, inputs[0])
    assert not torch.equal(mixed[2:], framework.images(batch["unlabeled"], "strong")[:, 0])
    assert not any(module.training for module in framework.teacher.modules())


def test_the_judgement_alone_moves_the_teachers_statistics(tree):
    framework, batch = make(tree, *PLAIN)
    name = next(name for name, _ in framework.teacher.named_buffers() if name.endswith("running_mean"))
    before = framework.teacher.get_buffer(name).clone()
    losses_of(framework, batch)
    judged = framework.teacher.get_buffer(name).clone()
    assert not torch.equal(judged, before)
    framework.after_step()
    assert torch.equal(framework.teacher.get_buffer(name), judged)


def test_the_next_image_is_shown_in_the_box_with_all_that_is_known(tree):
    framework, batch = make(tree, *U2PL)
    items = [dict(batch["unlabeled"][0]) for _ in range(3)]
    for number, item in enumerate(items):
        item["strong"] = torch.full_like(item["strong"], 40 * number)
        item["valid"] = torch.full_like(item["valid"], number != 1)
    boxes = torch.zeros(3, 48, 64, dtype=torch.bool)
    boxes[:, 5:20, 10:50] = True
    labels = framework.make_pseudo_labels(items, framework.teacher_forward(items))
    mixed, pseudo = framework._mix(labels, framework.stack(items, "strong")[:, 0], boxes)
    shown = (mixed[:, 0] * framework.student.pixel_std[0] + framework.student.pixel_mean[0]).round()
    for number in range(3):
        following = (number + 1) % 3
        assert (shown[number][boxes[number]] == 40 * following).all()
        assert (shown[number][~boxes[number]] == 40 * number).all()
        assert (pseudo.valid[number][boxes[number]] == (following != 1)).all()
        assert (pseudo.valid[number][~boxes[number]] == (number != 1)).all()
    assert ((pseudo.labels == IGNORE) == ~pseudo.valid).all()


def pseudo_example(tree, unlabeled=2):
    framework, batch = make(tree, *U2PL)
    items = batch["unlabeled"]
    pseudo = framework.make_pseudo_labels(items, framework.teacher_forward(items))
    valid = pseudo.valid.clone()
    valid[0, 40:] = False
    weight = torch.rand_like(pseudo.weight)
    return framework, pseudo.replace(valid=valid, labels=pseudo.labels.masked_fill(~valid, IGNORE), weight=weight)


def test_the_kept_pixels_mean_is_divided_by_their_share_of_the_valid_ones(tree):
    framework, pseudo = pseudo_example(tree)
    torch.manual_seed(1)
    logits, kept = torch.randn(2, 3, 48, 64), pseudo.valid & (torch.rand(2, 48, 64) < 0.7)
    loss = (cross_entropy(logits, pseudo.labels) * pseudo.weight)[kept].mean()
    found = reduce_term(framework._consistency(logits, pseudo, kept))
    torch.testing.assert_close(found, loss * pseudo.valid.sum() / kept.sum())
    nothing = reduce_term(framework._consistency(logits, pseudo, torch.zeros_like(kept)))
    assert nothing == 0


def test_the_ratio_of_unreliable_pixels_falls_to_nothing(tree):
    framework, batch = make(tree, *PLAIN, "SOLVER.MAX_ITER", 100, "FRAMEWORK.U2PL.UNRELIABLE", 40.0)
    ratios = []
    for framework.iteration in (0, 50, 99):
        torch.manual_seed(0)
        term = framework.terms(batch)[0][-1]
        ratios.append((term.norm.sum() / (term.target != IGNORE).sum()).item())
    assert ratios == pytest.approx([0.6, 0.8, 0.996], abs=0.005)
    framework.iteration = 150
    assert framework.unreliable_percent == 0


def test_the_sure_and_the_unsure_pixels_go_to_the_contrastive_loss(tree, monkeypatch):
    framework, batch = make(tree, *PLAIN)
    batch["labeled"][0]["sem_seg"][:9] = IGNORE
    taken = []
    monkeypatch.setattr(
        framework.contrast, "forward", lambda cells, samples: taken.append(cells) or cells.student.sum()
    )
    losses_of(framework, batch)
    cells = taken[0]
    assert cells.labeled == 2 and cells.label.shape == (4, 12, 16)
    known = cells.label[:2] != IGNORE
    assert torch.equal(cells.certain[:2], known) and torch.equal(cells.uncertain[:2], known)
    assert not known.all()
    entropy = -(cells.probability * cells.probability.log()).sum(dim=1)[2:]
    certain, uncertain = cells.certain[2:], cells.uncertain[2:]
    valid = cells.label[2:] != IGNORE
    assert not (certain & uncertain).any() and not ((certain | uncertain) & ~valid).any()
    middle = valid & ~certain & ~uncertain
    assert entropy[certain].max() <= entropy[middle].min() and entropy[middle].max() <= entropy[uncertain].min()
    for ratio in (certain.sum() / valid.sum(), uncertain.sum() / valid.sum()):
        assert 0.1 < ratio < 0.3


def test_in_the_burn_in_all_parameters_have_a_gradient(tree):
    framework, batch = make(tree, *PLAIN, "FRAMEWORK.BURN_IN", 1)
    losses = losses_of(framework, batch)
    assert losses["loss_contrast"] == 0
    sum(losses.values()).backward()
    # Else DDP would wait for them for ever.
    assert [name for name, p in framework.student.named_parameters() if p.grad is None] == []
    framework.after_step()
    assert not framework.contrast.queues.pushed.any()


def test_the_teacher_of_the_burn_in_is_the_students_copy_statistics_and_all(tree):
    # Published: it keeps its first weights, and by these moves its statistics.
    framework, batch = make(tree, *PLAIN, "FRAMEWORK.BURN_IN", 3)
    optimizer = torch.optim.SGD(framework.student.parameters(), lr=0.01)
    first = {key: value.clone() for key, value in framework.teacher.state_dict().items()}
    for framework.iteration in range(3):
        optimizer.zero_grad()
        sum(losses_of(framework, batch).values()).backward()
        optimizer.step()
        framework.after_step()
        ours, theirs = framework.student.state_dict(), framework.teacher.state_dict()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    for key in ("sem_seg_head.predictor.weight", "backbone.body.bn1.running_mean"):
        assert not torch.equal(theirs[key], first[key])


def test_the_contrastive_loss_trains_the_representation_by_its_weight(tree):
    gradients = []
    for factor in (1.0, 0.1):
        framework, batch = make(tree, *PLAIN, "FRAMEWORK.U2PL.CONTRAST_WEIGHT", factor)
        for _ in range(2):
            losses = losses_of(framework, batch)
            framework.after_step()
        losses["loss_contrast"].backward()
        fork = framework.student.sem_seg_head.decoder["res2"]["fuse_conv"]
        gradients.append(torch.cat([p.grad.flatten() for p in fork.representation.parameters()]))
        assert all(p.grad is None for p in framework.student.sem_seg_head.predictor.parameters())
    assert gradients[0].any()
    torch.testing.assert_close(gradients[1], 0.1 * gradients[0])


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["INPUT.STRONG.VIEWS", 2], r"INPUT\.STRONG\.VIEWS: 2, but U2PL needs 1; set it to that"),
        (["MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM", 0], r"REPRESENTATION_DIM: 0, but U2PL needs .* set it to 256"),
    ],
)
def test_what_cannot_be_is_refused(tree, opts, message):
    with pytest.raises(ValueError, match=message):
        build_framework(tree.cfg(*SMALL, *U2PL, *opts))


@pytest.mark.parametrize("kept", [1.0, 0.4])
def test_percentiles_are_numpys(kept):
    torch.manual_seed(0)
    values, mask = torch.rand(2, 30, 17), torch.rand(2, 30, 17) < kept
    for percent in (0.0, 3.3, 20.0, 80.0, 100.0):
        (found,) = percentiles(values, mask, percent)
        assert found.item() == pytest.approx(np.percentile(values[mask].numpy(), percent), rel=1e-5)
    assert [p.item() for p in percentiles(values, mask, 20.0, 80.0)] == [
        percentiles(values, mask, percent)[0].item() for percent in (20.0, 80.0)
    ]


def test_nothing_lies_on_any_side_of_a_percentile_of_nothing():
    values = torch.rand(1, 3, 3)
    (found,) = percentiles(values, torch.zeros(1, 3, 3, dtype=torch.bool), 50.0)
    assert not (values < found).any() and not (values >= found).any()


def test_one_pixel_is_its_own_percentile():
    mask = torch.tensor([False, True, False])
    assert [p.item() for p in percentiles(torch.tensor([1.0, 2.0, 3.0]), mask, 0.0, 20.0, 100.0)] == [2.0, 2.0, 2.0]
