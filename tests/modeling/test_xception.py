import pytest
import timm
import torch
from detectron2.modeling import build_backbone
from torch import nn

from wpl_d2 import build_model
from wpl_d2.modeling import load_backbone_weights
from wpl_d2.modeling.backbone import XceptionBackbone
from wpl_d2.utils.errors import InputError

# The smallest of the family: only the middle flow is shorter.
XCEPTION = ["MODEL.BACKBONE.NAME", "build_xception_backbone", "MODEL.TIMM.NAME", "xception41"]


def randomize(module):
    """Random BN statistics: with the initial ones, exchanged layers could go unnoticed."""
    torch.manual_seed(3)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_var.uniform_(0.5, 1.5)
            norm.running_mean.normal_(std=0.1)
    return module.eval()


@pytest.mark.parametrize("name", ["xception41", "xception71"])
def test_weights_of_timm_give_its_features_before_their_relu(make_cfg, tmp_path, name):
    classifier = randomize(timm.create_model(name))
    torch.save(classifier.state_dict(), tmp_path / "xception.pth")
    reference = timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    # timm's extractor has the stem and the blocks at its top level.
    flat = {key.replace(".", "_", 1): value for key, value in classifier.state_dict().items() if "head" not in key}
    reference.load_state_dict(flat)
    backbone = build_backbone(make_cfg(*XCEPTION, "MODEL.TIMM.NAME", name, "MODEL.BACKBONE.OUTPUT_STRIDE", 32)).eval()
    load_backbone_weights(backbone, str(tmp_path / "xception.pth"))
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        features, expected = backbone(image), reference(image)
    assert list(features) == ["res2", "res3", "res4", "res5"]
    assert all((features[level] < 0).any() for level in ("res2", "res3", "res4"))
    for feature, other in zip(features.values(), expected, strict=True):
        torch.testing.assert_close(feature.relu(), other)


@pytest.mark.parametrize(("output_stride", "size", "dilation"), [(8, 9, 2), (16, 5, 1), (32, 3, 1)])
def test_the_exit_flow_is_dilated_as_the_middle_flow(output_stride, size, dilation):
    backbone = XceptionBackbone("xception41", output_stride=output_stride).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 65, 65))
    assert {key: (value.shape[1], value.shape[2]) for key, value in features.items()} == {
        "res2": (256, 17),
        "res3": (728, 9),
        "res4": (1024, min(9, max(5, size))),
        "res5": (2048, size),
    }
    strides = [4, 8, min(16, output_stride), output_stride]
    assert [(spec.channels, spec.stride) for spec in backbone.output_shape().values()] == list(
        zip([256, 728, 1024, 2048], strides, strict=True)
    )
    depthwise = [module for module in backbone.body.blocks[3:].modules() if getattr(module, "groups", 1) > 1]
    assert {module.dilation for module in depthwise} == {(dilation, dilation)}


@pytest.mark.parametrize("norm", ["SyncBN", "naiveSyncBN", "FrozenBN"])
def test_converted_norm_is_the_same_function(norm):
    plain, converted = randomize(XceptionBackbone("xception41")), XceptionBackbone("xception41", norm=norm).eval()
    converted.load_state_dict(plain.state_dict(), strict=norm != "FrozenBN")
    assert not any(type(module) is nn.BatchNorm2d for module in converted.modules())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(converted(image), plain(image), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "naiveSyncBN"])
def test_the_momentum_is_that_of_all_the_backbones_norms_alone(make_cfg, norm):
    opts = ["MODEL.RESNETS.NORM", norm, "MODEL.SEM_SEG_HEAD.NORM", norm]
    own, slow = (build_model(make_cfg(*XCEPTION, *opts, "MODEL.TIMM.BN_MOMENTUM", value)) for value in (0.0, 0.0003))
    assert momenta(own.backbone) == {0.1}
    assert momenta(slow.backbone) == {0.0003}
    assert momenta(slow.sem_seg_head) == {0.1}


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "naiveSyncBN", "FrozenBN"])
def test_the_epsilon_is_that_of_all_the_backbones_norms_alone(make_cfg, norm):
    opts = ["MODEL.RESNETS.NORM", norm, "MODEL.SEM_SEG_HEAD.NORM", norm]
    own, small = (build_model(make_cfg(*XCEPTION, *opts, "MODEL.TIMM.BN_EPS", value)) for value in (0.0, 1e-5))
    assert epsilons(own.backbone) == {1e-3}
    assert epsilons(small.backbone) == {1e-5}
    assert epsilons(own.sem_seg_head) == epsilons(small.sem_seg_head) == {1e-5}


@pytest.mark.parametrize("output_stride", [16, 32])
@pytest.mark.parametrize("name", ["xception41", "xception71"])
def test_rectified_shortcuts_are_those_of_blocks_that_overwrite_their_input(make_cfg, tmp_path, name, output_stride):
    """UniMatch's: the first ReLU of a block is in place where the block's input is also its shortcut."""
    classifier = randomize(timm.create_model(name))
    torch.save(classifier.state_dict(), tmp_path / "xception.pth")
    opts = ["MODEL.TIMM.NAME", name, "MODEL.BACKBONE.OUTPUT_STRIDE", output_stride]
    backbones = [
        build_backbone(make_cfg(*XCEPTION, *opts, "MODEL.XCEPTION.RECTIFIED_SHORTCUTS", rectified)).eval()
        for rectified in (False, True)
    ]
    for backbone in backbones:
        load_backbone_weights(backbone, str(tmp_path / "xception.pth"))
    plain, rectified = backbones
    overwriting = [block for block in plain.body.blocks if block.shortcut is None and not block.no_skip]
    assert len(overwriting) == {"xception41": 8, "xception71": 16}[name]
    image = torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        before = plain(image)
        for block in overwriting:
            block.stack[0].inplace = True
        expected, found = plain(image), rectified(image)
    torch.testing.assert_close(found, expected)
    assert torch.equal(before["res3"], found["res3"])
    assert not torch.allclose(before["res5"], found["res5"], rtol=0.1)


def epsilons(module):
    return {inner.eps for inner in module.modules() if hasattr(inner, "eps")}


def momenta(module):
    return {inner.momentum for inner in module.modules() if hasattr(inner, "momentum")}


def test_all_features_train_all_layers(make_cfg):
    backbone = build_backbone(make_cfg(*XCEPTION)).train()
    sum(feature.square().mean() for feature in backbone(torch.randn(2, 3, 33, 33)).values()).backward()
    idle = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert idle == []


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.TIMM.NAME", "xception65p"], "MODEL.TIMM.NAME: 'xception65p' .* did you mean xception65"),
        (["MODEL.TIMM.NAME", "resnet18"], "MODEL.TIMM.NAME: 'resnet18' .* xception41, xception65, xception71"),
        (["MODEL.BACKBONE.OUTPUT_STRIDE", 4], "OUTPUT_STRIDE: 4 .* 8, 16 or 32"),
        (["MODEL.BACKBONE.FREEZE_AT", 2], "FREEZE_AT: timm backbones cannot be frozen"),
    ],
)
def test_errors(make_cfg, opts, message):
    with pytest.raises(InputError, match=message):
        build_model(make_cfg(*XCEPTION, *opts))
