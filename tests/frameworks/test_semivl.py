"""What is SemiVL's own: the guide, whose labels fade, and which losses the weights apply to."""

import pytest
import torch
from helpers import PREVMATCH, SEMIVL, SMALL
from steps import fill_bank, losses_of, make

from wpl_d2 import build_framework
from wpl_d2.checkpoint import FrameworkCheckpointer, load_model
from wpl_d2.export.wrapper import ExportWrapper
from wpl_d2.structures import PseudoLabels
from wpl_d2.utils.errors import InputError

GUIDANCE_ALONE = ["FRAMEWORK.SEMIVL.WEIGHTED", ("guidance",)]


def test_by_default_weights_apply_to_the_guidance_alone(tree):
    framework, batch = make(tree, *SEMIVL, *GUIDANCE_ALONE)
    neutral = losses_of(framework, batch)
    fill_bank(framework, batch)
    found = losses_of(framework, batch)
    assert found["loss_guidance"] < neutral["loss_guidance"]
    for name in ("loss_unsup", "loss_perturbed"):
        assert torch.equal(found[name], neutral[name])
    # What is recorded and drawn are the weights that train.
    assert (framework.last_step.pseudo_labels.weight < 1).any()
    assert 0 < framework.last_step.scalars["pseudo/weighted"] <= 1
    assert 0 < framework.last_step.scalars["guidance/selected"] <= 1


def test_the_guidance_fades_to_the_end_of_the_schedule(tree):
    framework, batch = make(tree, *SEMIVL, "SOLVER.MAX_ITER", 4)
    losses = []
    for framework.iteration in range(5):
        losses.append(losses_of(framework, batch)["loss_guidance"].item())
    assert losses == pytest.approx([losses[0] * share for share in (1, 0.75, 0.5, 0.25, 0)], rel=1e-5)


def test_the_guide_is_the_first_encoder_and_stays_so(tree):
    framework, batch = make(tree, *SEMIVL)
    first = {name: value.clone() for name, value in framework.student.backbone.body.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in framework.student.parameters() if p.requires_grad], lr=0.1)
    sum(losses_of(framework, batch).values()).backward()
    optimizer.step()
    framework.after_step()
    assert all(torch.equal(framework.guide.body.state_dict()[name], value) for name, value in first.items())
    assert not torch.equal(framework.student.backbone.body.pos_embed, first["pos_embed"])
    assert all(parameter.grad is None for parameter in framework.guide.parameters())
    # As after the student's weights are loaded.
    framework.reset()
    assert torch.equal(framework.guide.body.pos_embed, framework.student.backbone.body.pos_embed)


def test_the_mean_confidence_is_that_of_the_images_own_valid_pixels(tree):
    framework, _ = make(tree, *SEMIVL, "FRAMEWORK.SEMIVL.CONFIDENCE", "mean", "FRAMEWORK.THRESHOLD", 0.0)
    logits = torch.randn(2, 3, 4, 6)
    valid = torch.ones(2, 4, 6, dtype=torch.bool)
    valid[1, 2:] = False
    pseudo = PseudoLabels.from_logits(logits, valid)
    term = framework.consistency("loss", logits, pseudo, 1.0)
    for number, pixels in enumerate((slice(None), slice(2))):
        mean = pseudo.confidence[number, pixels].mean()
        assert torch.allclose(term.mask[number], mean * valid[number])


def test_checkpoints_are_whole_without_the_text_encoder(tree, tmp_path):
    cfg = tree.cfg(*SMALL, *SEMIVL, "OUTPUT_DIR", str(tmp_path))
    framework = build_framework(cfg)
    FrameworkCheckpointer(framework, cfg).save("model_final")
    model, _ = load_model(str(tmp_path / "model_final.pth"))
    assert torch.equal(model.sem_seg_head.texts, framework.student.sem_seg_head.texts)
    assert not any(name.startswith("guide") for name in model.state_dict())
    images = 255 * torch.rand(1, 3, 64, 64)
    assert ExportWrapper(model)(images).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    "opts",
    [
        ["WEIGHTING.KIND", ("calibrated",)],
        ["WEIGHTING.KIND", ("confidence", "softmatch")],
        ["WEIGHTING.PER_CLASS", True],
    ],
)
@pytest.mark.parametrize("method", [PREVMATCH, SEMIVL], ids=["PrevMatch", "SemiVL"])
def test_weights_that_learn_from_one_models_labels_are_refused(tree, method, opts):
    with pytest.raises(InputError, match=f"^{opts[0]}: .*{method[1]} weighs"):
        build_framework(tree.cfg(*SMALL, *method, *opts))


@pytest.mark.parametrize("key", ["MODEL.BACKBONE.NAME", "MODEL.SEM_SEG_HEAD.NAME"])
def test_another_network_is_refused(tree, key):
    other = {"MODEL.BACKBONE.NAME": "build_vit_backbone", "MODEL.SEM_SEG_HEAD.NAME": "DPTHead"}[key]
    with pytest.raises(InputError, match=f"^{key}: {other}, but SemiVL needs CLIP"):
        build_framework(tree.cfg(*SMALL, *SEMIVL, key, other))
