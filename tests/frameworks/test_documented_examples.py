"""The documentation's examples, a framework and a weight of one's own, do what they say."""

import runpy
from pathlib import Path

import pytest
import torch
from steps import fill_bank, losses_of, make

from wpl_d2.frameworks import FRAMEWORK_REGISTRY
from wpl_d2.weighting import SCORE_REGISTRY

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
OPTS = ["FRAMEWORK.NAME", "SoftMeanTeacher", "FRAMEWORK.THRESHOLD", 0.2]


@pytest.fixture(scope="module", autouse=True)
def registered():
    before = [(registry, dict(registry._obj_map)) for registry in (FRAMEWORK_REGISTRY, SCORE_REGISTRY)]
    for example in EXAMPLES.glob("*.py"):
        if example.name != "npy_labels.py":  # which the tests of label formats register
            runpy.run_path(str(example))
    yield
    for registry, known in before:
        registry._obj_map = known


def test_its_loss_is_the_squared_distance_of_confident_pixels(tree):
    framework, batch = make(tree, *OPTS, "WEIGHTING.ENABLED", False, "MODEL.RESNETS.NORM", "FrozenBN")
    weak, strong = (framework.student.normalize(images) for images in views(batch))
    teacher = probabilities(framework.teacher, weak)
    valid = torch.stack([item["valid"] for item in batch["unlabeled"]])
    labeled = framework.images(batch["labeled"], "image")
    student = probabilities(framework.student, torch.cat([labeled, strong]))[len(labeled) :]
    trained = valid & (teacher.amax(1) >= 0.2)
    expected = ((student - teacher).square().sum(1) * trained).sum() / valid.sum()
    torch.testing.assert_close(losses_of(framework, batch)["loss_unsup"].detach(), expected, rtol=2e-4, atol=1e-6)


def test_weights_and_the_burn_in_act_on_it(tree):
    framework, batch = make(tree, *OPTS, "FRAMEWORK.BURN_IN", 2, "WEIGHTING.K", 64)
    assert "loss_unsup" not in losses_of(framework, batch)
    framework.iteration = 2
    fill_bank(framework, batch)
    weighted = losses_of(framework, batch)["loss_unsup"]
    framework.weigher = None
    plain = losses_of(framework, batch)["loss_unsup"]
    assert 0 < weighted < plain
    weighted.backward()
    assert all(p.grad is None for p in framework.teacher.parameters())
    assert any(p.grad is not None for p in framework.student.parameters())


def test_the_margin_of_probabilities_weighs_pseudo_labels(tree):
    framework, batch = make(tree, "WEIGHTING.KIND", ("probability_margin",))
    items = batch["unlabeled"]
    pseudo = framework.make_pseudo_labels(items, framework.teacher_forward(items))
    first, second = probabilities(framework.teacher, framework.images(items, "image")).topk(2, dim=1).values.unbind(1)
    torch.testing.assert_close(pseudo.weight[pseudo.valid], (first - second)[pseudo.valid])


def views(batch):
    items = batch["unlabeled"]
    return torch.stack([item["image"] for item in items]), torch.stack([item["strong"][0] for item in items])


@torch.no_grad()
def probabilities(model, images):
    return model.decode(model.encode(images), images.shape[-2:]).logits.softmax(dim=1)
