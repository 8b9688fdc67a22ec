"""Class activation maps with self-attention; their values are held by tests/golden/test_pseudoseg_golden.py."""

import pytest
import torch

from wpl_d2 import build_model
from wpl_d2.checkpoint import load_model
from wpl_d2.checkpoint.metadata import build_metadata
from wpl_d2.engine.solver import build_optimizer
from wpl_d2.utils.errors import InputError

CAM = ["MODEL.METHOD_HEAD.NAME", "SelfAttentionCAM"]


def make(make_cfg, *opts):
    torch.manual_seed(0)
    model = build_model(make_cfg(*CAM, *opts))
    features = model.encode(torch.randn(2, 3, 64, 96))
    return model.method_head, features


def everywhere(*size):
    return torch.ones(2, *size, dtype=torch.bool)


def test_gradients_reach_its_own_layers_alone(make_cfg):
    head, features = make(make_cfg)
    logits = head(features, torch.ones(2, 4), everywhere(64, 96))
    assert logits.shape == (2, 5, *features["res5"].shape[-2:])
    logits[:, 0].square().sum().backward(retain_graph=True)
    reached = {name for name, parameter in head.named_parameters() if parameter.grad is not None}
    assert reached == {"query.weight", "key.weight", "project.weight", "norm.bias"}
    (gradient,) = torch.autograd.grad(head.classify(features).sum(), features["res5"])
    assert (gradient != 0).all()


def test_classes_that_an_image_does_not_show_have_empty_maps(make_cfg):
    head, features = make(make_cfg)
    head.norm = torch.nn.Identity()
    torch.nn.init.eye_(head.project.weight[:, :, 0, 0])
    background, *classes = head(features, torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0]]), everywhere(64, 96)).unbind(1)
    first, second, third, fourth = classes
    assert not second.any() and not third.any()
    for shown in (first, fourth):
        # Its own activation is between 0 and 1, and the mean of the other cells' too.
        assert 1 < shown[0].max() <= 2 and shown[0].min() >= 0 and not shown[1].any()
    torch.testing.assert_close(background[0], 2 - torch.maximum(first[0], fourth[0]))
    assert (background[1] == 2).all()


def test_padding_is_not_attended_to(make_cfg):
    head, features = make(make_cfg)
    head.norm = torch.nn.Identity()
    valid = everywhere(64, 96)
    valid[:, :, 64:] = False
    inside = head(features, torch.ones(2, 4), valid)[..., :4]
    # Only what the maps are scaled by sees all cells.
    scale = head._activation(features["res5"], torch.ones(2, 4)).amax(dim=(2, 3)).sum()
    features = {name: maps.clone() for name, maps in features.items()}
    features["res4"][..., -2:] += 1
    assert torch.equal(head(features, torch.ones(2, 4), valid)[..., :4], inside) and scale == 8
    assert not torch.equal(head(features, torch.ones(2, 4), everywhere(64, 96))[..., :4], inside)


def test_mixed_precision_leaves_it_alone(make_cfg):
    head, features = make(make_cfg)
    expected = head(features, torch.ones(2, 4), everywhere(64, 96))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(features, torch.ones(2, 4), everywhere(64, 96)), expected)


@pytest.mark.parametrize("norm", ["GN", ""])
def test_other_norms(make_cfg, norm):
    width = ["MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", [32]]
    head, features = make(make_cfg, *width, "MODEL.SEM_SEG_HEAD.NORM", norm)
    logits = head(features, torch.ones(2, 4), everywhere(64, 96))
    assert logits.isfinite().all()
    if norm:
        torch.testing.assert_close(logits.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)


def test_it_learns_at_the_heads_rate(make_cfg):
    cfg = make_cfg(*CAM)
    model = build_model(cfg)
    rates = {id(p): group["lr"] for group in build_optimizer(cfg, model).param_groups for p in group["params"]}
    learned = [parameter for parameter in model.method_head.parameters() if parameter.requires_grad]
    assert {rates[id(parameter)] for parameter in learned} == {0.01}


def test_a_model_is_loaded_without_it(make_cfg, tmp_path):
    cfg = make_cfg(*CAM)
    trained = build_model(cfg)
    path = tmp_path / "model.pth"
    weights = {f"student.{key}": value for key, value in trained.state_dict().items()}
    torch.save({"model": weights, **build_metadata(cfg)}, path)
    loaded, metadata = load_model(str(path))
    assert loaded.method_head is None and metadata["config"].MODEL.METHOD_HEAD.NAME == ""
    wanted = trained.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in loaded.state_dict().items())


def test_an_unknown_head_is_refused(make_cfg):
    with pytest.raises(InputError, match=r"METHOD_HEAD\.NAME: .*SelfAttentionCAN.*SelfAttentionCAM"):
        build_model(make_cfg("MODEL.METHOD_HEAD.NAME", "SelfAttentionCAN"))
