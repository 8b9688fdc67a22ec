import copy

import pytest
import torch
from helpers import PCR, PSMT, PSMT_PHASES, SMALL
from steps import losses_of, make

from wpl_d2 import build_framework
from wpl_d2.checkpoint import load_model
from wpl_d2.engine import Trainer
from wpl_d2.export import FORMATS, export_model, open_model
from wpl_d2.frameworks.psmt import cosine_ramp, most_probable
from wpl_d2.modeling import ModelPair
from wpl_d2.utils.errors import InputError


def test_teachers_take_turns_and_the_idle_one_keeps_its_weights(tree):
    framework, _ = make(tree, *PSMT, "FRAMEWORK.BURN_IN", 2, "FRAMEWORK.PSMT.TURN_STEPS", 3)
    first, second = framework.teacher.first, framework.teacher.second
    active = []
    for framework.iteration in range(12):
        active.append(framework.pseudo_labeler)
        assert framework.teachers == ((first, second) if active[-1] is first else (second, first))
    assert active == 5 * [first] + 3 * [second] + 3 * [first] + [second]
    for framework.iteration, follows in ((1, (False, False)), (2, (True, False)), (5, (False, True))):
        before = [copy.deepcopy(dict(teacher.named_parameters())) for teacher in (first, second)]
        framework.after_step()
        for teacher, old, moved in zip((first, second), before, follows, strict=True):
            name = "sem_seg_head.predictor.weight"
            assert torch.equal(teacher.get_parameter(name), old[name]) != moved


def test_all_three_learn_in_the_burn_in_and_the_student_alone_after_it(tree):
    framework, batch = make(tree, *PSMT_PHASES)
    models = framework.student, *framework.teachers
    assert framework.students == list(models) and framework.trains_in_phases
    for framework.iteration, trained in ((0, (True, True, True)), (1, (True, False, False))):
        sum(losses_of(framework, batch).values()).backward()
        for model, expected in zip(models, trained, strict=True):
            assert all((p.grad is not None) == expected for p in model.parameters())
        framework.zero_grad()
    framework, _ = make(tree, *PSMT)
    assert framework.students == [framework.student] and not framework.trains_in_phases


def test_the_burn_in_shows_teachers_weak_views_and_the_student_strong_ones(tree):
    framework, batch = make(tree, *PSMT_PHASES, "WEIGHTING.ENABLED", False)
    losses = losses_of(framework, batch)["loss_sem_seg"]
    for item in batch["labeled"]:
        item["strong"] = item["image"][None]
    alike = losses_of(framework, batch)["loss_sem_seg"]
    assert not torch.equal(losses, alike)
    weak, target = framework.images(batch["labeled"], "image"), framework.stack(batch["labeled"], "sem_seg")
    entropy = torch.nn.CrossEntropyLoss(ignore_index=255)
    expected = sum(
        entropy(model.decode(model.encode(weak), target.shape[1:]).logits, target) for model in framework.students
    )
    torch.testing.assert_close(alike, expected)


def test_the_most_probable_classes():
    logits = torch.tensor([3.0, -1.0, 0.0, 2.0]).view(1, 4, 1, 1)
    assert most_probable(logits, 2).flatten().tolist() == [True, False, False, True]
    assert most_probable(logits, 4).all()


def test_the_ramp():
    assert [cosine_ramp(step, 4) for step in (0, 2, 4, 9)] == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert cosine_ramp(0, 0) == 1.0


def test_three_boxes_come_from_any_image(tree):
    framework, _ = make(tree, *PSMT, "FRAMEWORK.PSMT.CUTMIX", "boxes", "FRAMEWORK.CUTMIX.AREA", (0.25, 0.5))
    views = torch.zeros(4, 3, 40, 60)
    samples = framework.random_samples(views)
    assert len(samples) == 3
    for mask, partner in samples:
        assert mask.shape == (4, 40, 60) and mask.flatten(1).any(dim=1).all()
        assert partner.shape == (4,) and set(partner.tolist()) <= set(range(4))


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        ([*PSMT, "INPUT.STRONG.LABELED", False], r"LABELED: False, but PSMT learns from strong views of labeled"),
        (["INPUT.STRONG.LABELED", True], r"LABELED: True, but MeanTeacher learns from no strong views of labeled"),
        ([*PSMT, "INPUT.STRONG.VIEWS", 2], r"VIEWS: 2, but PSMT needs 1"),
    ],
)
def test_refusals(tree, opts, message):
    with pytest.raises(InputError, match=message):
        build_framework(tree.cfg(*SMALL, *opts))


@pytest.mark.parametrize("opts", [PCR, PSMT], ids=["PCR", "PSMT"])
def test_a_head_of_one_piece_is_refused(tree, opts, monkeypatch):
    monkeypatch.delattr("wpl_d2.modeling.EmbeddingDeepLabV3PlusHead.merge")
    with pytest.raises(InputError, match=rf"^MODEL\.SEM_SEG_HEAD\.NAME: {opts[1]} takes .*DeepLabV3PlusHead has no"):
        build_framework(tree.cfg(*SMALL, *opts))


@pytest.mark.slow
def test_what_is_evaluated_is_what_is_exported_the_mean_of_both_teachers(tree, tmp_path):
    cfg = tree.cfg(*SMALL, *PSMT_PHASES, "SOLVER.MAX_ITER", 3, "OUTPUT_DIR", str(tmp_path / "out"))
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    file, images = str(tmp_path / "out/model_final.pth"), torch.rand(1, 3, 50, 60) * 255
    models = {name: model.eval() for name, model in trainer.framework.eval_models().items()}
    expected = models["teacher"].segment(images)
    torch.testing.assert_close(
        expected, (models["teacher"].first.segment(images) + models["teacher"].second.segment(images)) / 2
    )
    assert not torch.allclose(models["teacher"].first.segment(images), models["teacher"].second.segment(images))
    pair, _ = load_model(file)
    assert isinstance(pair, ModelPair) and torch.equal(pair.segment(images), expected)
    student, _ = load_model(file, which="student")
    assert torch.equal(student.segment(images), models["student"].segment(images))
    for kind in ("torchscript", "safetensors"):
        target = tmp_path / f"exported{FORMATS[kind].suffix}"
        export_model(file, kind, target)
        found = open_model(target, trust_code=True).segment(images)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
