"""The documentation's example of a framework of one's own does what it says."""

import runpy
from pathlib import Path

import pytest
import torch
from steps import fill_bank, losses_of, make

from wpl_d2.frameworks import FRAMEWORK_REGISTRY

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "soft_mean_teacher.py"
OPTS = ["FRAMEWORK.NAME", "SoftMeanTeacher", "FRAMEWORK.THRESHOLD", 0.2]


@pytest.fixture(scope="module", autouse=True)
def registered():
    if "SoftMeanTeacher" not in FRAMEWORK_REGISTRY:
        runpy.run_path(str(EXAMPLE))


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
    plain = losses_of(framework, batch)["loss_unsup"]
    fill_bank(framework, batch)
    weighted = losses_of(framework, batch)["loss_unsup"]
    assert 0 < weighted < plain
    weighted.backward()
    assert all(p.grad is None for p in framework.teacher.parameters())
    assert any(p.grad is not None for p in framework.student.parameters())


def views(batch):
    items = batch["unlabeled"]
    return torch.stack([item["image"] for item in items]), torch.stack([item["strong"][0] for item in items])


@torch.no_grad()
def probabilities(model, images):
    return model.decode(model.encode(images), images.shape[-2:]).logits.softmax(dim=1)
