"""Every kind of weight under a framework whose teacher labels, and under one whose student does."""

import pytest
import torch
from helpers import DAW, PSEUDOSEG, PSMT, SMALL, SMALL_DETECTOR, SMALL_VIT, UNIMATCH
from steps import losses_of

import wpl_d2
from wpl_d2.data import build_train_loader
from wpl_d2.structures import IGNORE, Detections
from wpl_d2.utils.errors import InputError
from wpl_d2.weighting import SCORE_REGISTRY, Score

KINDS = [score.kind for _, score in SCORE_REGISTRY]


def make(tree, kind, *opts):
    """A framework that weighs by `kind` and cached boxes, after a step that filled its bank, and a batch."""
    cfg = tree.cfg(*SMALL, "WEIGHTING.KIND", kind, "WEIGHTING.K", 64, *opts)
    batch = next(iter(build_train_loader(cfg)))
    for item in batch["unlabeled"]:
        boxes = torch.tensor([[0.0, 0, 30, 30], [10, 10, 60, 40]])
        item["detections"] = Detections(boxes, torch.tensor([0.9, 0.4]), torch.tensor([2, 1]))
    cfg.MODEL.DETECTOR.MODE = "cached"
    torch.manual_seed(0)
    framework = wpl_d2.build_framework(cfg)
    if framework.weigher is not None:
        framework.weigher.labeled_bank.push(torch.rand(30, 256), torch.arange(30) % 3)
    return framework, batch


@pytest.mark.parametrize("host", [[], UNIMATCH])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_weighted_and_moves_no_statistics_of_its_own(tree, kind, host):
    framework, batch = make(tree, (kind,), *host)
    sum(losses_of(framework, batch).values()).backward()
    plain, _ = make(tree, (kind,), "WEIGHTING.ENABLED", False, *host)
    losses_of(plain, batch)
    for (name, ours), theirs in zip(framework.student.named_buffers(), plain.student.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
    assert framework.training and framework.student.training
    pseudo = framework.last_step.pseudo_labels
    weight = pseudo.weight[pseudo.labels != IGNORE]
    assert 0 <= weight.min() <= weight.max() <= 1
    # Nothing is fitted yet, and the mean of softmatch begins where no confidence is below it.
    assert weight.min() < weight.max() or kind in ("calibrated", "softmatch")
    framework.after_step()


class InBox(Score):
    """A kind of one's own, which the package cannot know by its name."""

    kind = "in_box"
    needs = frozenset({"boxes"})


NO_BOXES = "needs boxes; set MODEL.DETECTOR.MODE shared or cached"
NO_BOXES_OF_LABELED = "needs boxes of the labeled images that calibrated learns from, which are not cached; leave it"
LEARNED_FROM = ["WEIGHTING.KIND", ("calibrated", "rank"), "WEIGHTING.CALIBRATED.SCORES"]


@pytest.mark.parametrize("kind", ["detector", "in_box"])
@pytest.mark.parametrize(
    ("mode", "opts", "message"),
    [
        ("none", ["WEIGHTING.KIND"], NO_BOXES),
        ("none", LEARNED_FROM, NO_BOXES_OF_LABELED),
        ("cached", LEARNED_FROM, NO_BOXES_OF_LABELED),
    ],
)
def test_without_boxes_kinds_that_need_them_cannot_weigh(tree, monkeypatch, kind, mode, opts, message):
    monkeypatch.setitem(SCORE_REGISTRY._obj_map, "InBox", InBox)
    cfg = tree.cfg(*SMALL, *opts, ("confidence", kind))
    cfg.MODEL.DETECTOR.MODE = mode
    with pytest.raises(InputError, match=f"^{opts[-1]}: {kind} {message}"):
        wpl_d2.build_framework(cfg)


def test_on_cached_boxes_labels_that_they_refine_are_not_learned_from(tree):
    cfg = tree.cfg(*SMALL, "WEIGHTING.KIND", ("calibrated",), "PSEUDO_LABEL.REFINE", "detector")
    cfg.MODEL.DETECTOR.MODE = "cached"
    with pytest.raises(InputError, match=f"^PSEUDO_LABEL.REFINE: detector {NO_BOXES_OF_LABELED}"):
        wpl_d2.build_framework(cfg)


def test_a_fit_needs_no_boxes_for_the_weights_beside_it(tree):
    framework, batch = make(tree, ("detector", "calibrated"), "RPPI.ENABLED", True, "WEIGHTING.MIN_COUNT", 1)
    losses_of(framework, batch | {"held_out": batch["labeled"]})
    framework.after_step()
    assert framework.weigher.scores["calibrated"].fitted


def test_a_shared_detector_gives_scores_too(tree):
    cfg = tree.cfg(*SMALL, *SMALL_DETECTOR, "WEIGHTING.KIND", ("detector",), "RPPI.ENABLED", False)
    framework, batch = wpl_d2.build_framework(cfg), next(iter(build_train_loader(cfg)))
    losses_of(framework, batch)
    weight = framework.last_step.pseudo_labels.weight
    assert weight.min() >= 0 and weight.max() <= 1


@pytest.mark.parametrize("host", [[], DAW, PSMT, PSEUDOSEG], ids=["MeanTeacher", "DAW", "PSMT", "PseudoSeg"])
def test_calibrated_is_fitted_to_the_labels_that_the_host_makes(tree, monkeypatch, host):
    """On a network without norms of batches, which labels the same in training and in evaluation mode."""
    network = [*SMALL_VIT, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 256, "MODEL.SEM_SEG_HEAD.NORM", "FrozenBN"]
    framework, batch = make(tree, ("calibrated",), *network, *host)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in framework.parameters():  # so that models, and their labels, differ
            parameter += 0.03 * torch.randn_like(parameter)
    if host is DAW:
        framework.alignment.labeled.mean.copy_(torch.tensor([1e-30, 1.0, 1e-30]))
        framework.alignment.unlabeled.mean.fill_(1.0)
        framework.alignment.labeled.seen.fill_(True)
        framework.alignment.unlabeled.seen.fill_(True)
    fitted = []
    monkeypatch.setattr(framework.weigher, "stage_held_out", lambda evidence, _: fitted.append(evidence.pseudo.labels))
    items = batch["unlabeled"]
    losses_of(framework, batch | {"held_out": [item | {"sem_seg": item["valid"].long()} for item in items]})
    labels = framework.last_step.pseudo_labels.labels
    assert torch.equal(torch.cat(fitted), labels)
    plain = framework.teacher_forward(items).output.logits.argmax(dim=1)
    assert (plain != labels)[labels != IGNORE].any() == bool(host)


def test_calibrated_is_fitted_to_labels_that_prototypes_refine(tree, monkeypatch):
    framework, batch = make(tree, ("calibrated",), "PSEUDO_LABEL.REFINE", "prototype")
    fitted = []
    monkeypatch.setattr(framework.weigher, "stage_held_out", lambda evidence, _: fitted.append(evidence.pseudo.labels))
    items = batch["unlabeled"]
    losses_of(framework, batch | {"held_out": [item | {"sem_seg": item["valid"].long()} for item in items]})
    assert torch.equal(torch.cat(fitted), framework.last_step.pseudo_labels.labels)
