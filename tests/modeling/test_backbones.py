import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from wpl_d2.modeling import TimmBackbone, build_model, load_backbone_weights
from wpl_d2.modeling.backbone.timm import _NaiveSyncBatchNormAct
from wpl_d2.utils.errors import InputError

RESNET = ["MODEL.BACKBONE.NAME", "build_unified_resnet_backbone"]


def shapes(features):
    return {name: tuple(feature.shape[1:]) for name, feature in features.items()}


def randomize(module):
    """Random BN statistics too: with the initial ones, exchanged layers could go unnoticed."""
    torch.manual_seed(3)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(std=0.1)
    return module.eval()


def torchvision_features(model, image):
    x = model.maxpool(model.relu(model.bn1(model.conv1(image))))
    features = {}
    for level in range(1, 5):
        x = features[f"res{level + 1}"] = getattr(model, f"layer{level}")(x)
    return features


class DeepStemResNet(ResNet):
    """ResNet-50 with the stem of the published methods: three 3x3 convolutions, as `conv1.0` to `conv1.6`."""

    def __init__(self):
        super().__init__(Bottleneck, [3, 4, 6, 3], replace_stride_with_dilation=[False, False, True])
        self.conv1 = nn.Sequential(
            *(nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
            nn.Conv2d(64, 128, 3, 1, 1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(128)
        self.inplanes = 128
        self.dilation = 1
        self.layer1 = self._make_layer(Bottleneck, 64, 3)


@pytest.mark.parametrize(
    "output_stride, res4, res5", [(32, (5, 7), (3, 4)), (16, (5, 7), (5, 7)), (8, (9, 13), (9, 13))]
)
def test_resnet_output_stride(make_cfg, output_stride, res4, res5):
    cfg = make_cfg(
        *RESNET,
        "MODEL.BACKBONE.OUTPUT_STRIDE",
        output_stride,
        "MODEL.RESNETS.RES5_BLOCK_DILATIONS",
        (4, 8, 16),
    )
    backbone = build_backbone(cfg).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 65, 97))
    assert shapes(features) == {
        "res2": (256, 17, 25),
        "res3": (512, 9, 13),
        "res4": (1024, *res4),
        "res5": (2048, *res5),
    }
    assert backbone.output_shape()["res5"] == ShapeSpec(channels=2048, stride=output_stride)
    assert [block.conv2.dilation for block in backbone.res5] == [(4, 4), (8, 8), (16, 16)]
    inner = 2 if output_stride == 8 else 1
    assert [block.conv2.dilation[0] for block in backbone.res4] == [1] + [inner] * 5


def test_resnet_101_freezes_stages(make_cfg):
    backbone = build_backbone(make_cfg(*RESNET, "MODEL.RESNETS.DEPTH", 101, "MODEL.BACKBONE.FREEZE_AT", 2))
    assert len(backbone.res4) == 23
    frozen = {name.split(".")[0] for name, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "res2"}


@pytest.mark.parametrize(
    "opts, message",
    [
        (["MODEL.RESNETS.DEPTH", 18], "MODEL.RESNETS.DEPTH: 18 .* MODEL.TIMM.NAME, such as resnet18"),
        (["MODEL.RESNETS.STEM_TYPE", "deplab"], "STEM_TYPE: .* did you mean deeplab"),
        (["MODEL.RESNETS.STEM_TYPE", "deeplab_cell"], "STEM_TYPE: .* did you mean deeplab_ceil"),
        (["MODEL.BACKBONE.OUTPUT_STRIDE", 4], "OUTPUT_STRIDE: 4 .* 8, 16 or 32"),
        (["MODEL.RESNETS.RES5_BLOCK_DILATIONS", (1, 2)], "RES5_BLOCK_DILATIONS: .* give three whole numbers"),
        (["MODEL.BACKBONE.OUTPUT_STRIDE", 8], r"RES5_BLOCK_DILATIONS: \(1, 2, 2\) at output stride 8, .* \(4, 8, 16\)"),
        (["MODEL.RESNETS.NORM", "SynBN"], "NORM: .* SyncBN"),
    ],
)
def test_resnet_errors(make_cfg, opts, message):
    with pytest.raises(InputError, match=message):
        build_model(make_cfg(*RESNET, *opts))


@pytest.mark.parametrize(("output_stride", "dilations"), [(32, (1, 1, 1)), (16, (1, 2, 2)), (8, (2, 4, 4))])
def test_torchvision_weights_give_torchvision_features(make_cfg, tmp_path, output_stride, dilations):
    dilate = [False, output_stride <= 8, output_stride <= 16]
    reference = randomize(ResNet(Bottleneck, [3, 4, 6, 3], replace_stride_with_dilation=dilate))
    torch.save(reference.state_dict(), tmp_path / "resnet50.pth")
    stride = ["MODEL.BACKBONE.OUTPUT_STRIDE", output_stride, "MODEL.RESNETS.RES5_BLOCK_DILATIONS", dilations]
    backbone = build_backbone(make_cfg(*RESNET, "MODEL.RESNETS.STEM_TYPE", "basic", *stride)).eval()
    load_backbone_weights(backbone, str(tmp_path / "resnet50.pth"))
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        expected, features = torchvision_features(reference, image), backbone(image)
    assert expected.keys() == features.keys()
    for name in expected:
        torch.testing.assert_close(features[name], expected[name])


@pytest.mark.parametrize("ceil", [False, True])
def test_published_deep_stem_weights_give_the_same_features(make_cfg, tmp_path, ceil):
    reference = randomize(DeepStemResNet())
    reference.maxpool.ceil_mode = ceil
    torch.save(reference.state_dict(), tmp_path / "deep.pth")
    stem = "deeplab_ceil" if ceil else "deeplab"
    backbone = build_backbone(make_cfg(*RESNET, "MODEL.RESNETS.STEM_TYPE", stem)).eval()
    load_backbone_weights(backbone, str(tmp_path / "deep.pth"))
    for size in ((65, 65), (64, 48), (50, 67)):
        image = torch.randn(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(backbone(image), torchvision_features(reference, image))


@pytest.mark.parametrize(
    ("size", "ceil", "floor"),
    [(800, 201, 200), (801, 201, 201), (513, 129, 129), (769, 193, 193), (64, 17, 16), (63, 17, 16), (62, 16, 16)],
)
def test_a_stem_that_rounds_up_takes_a_multiple_of_the_stride_as_one_more_pixel(make_cfg, size, ceil, floor):
    for stem, expected in (("deeplab_ceil", ceil), ("deeplab", floor)):
        with torch.device("meta"):
            backbone = build_backbone(make_cfg(*RESNET, "MODEL.RESNETS.STEM_TYPE", stem))
            shape = backbone.stem(torch.empty(1, 3, size, 65)).shape
        assert shape == (1, 128, expected, 17)


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "convnext_atto"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_timm_output_stride(name, output_stride):
    backbone = TimmBackbone(name, output_stride).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 64, 96))
    declared = {
        key: (spec.channels, 64 // spec.stride, 96 // spec.stride) for key, spec in backbone.output_shape().items()
    }
    assert shapes(features) == declared
    assert [spec.stride for spec in backbone.output_shape().values()] == [4, 8, min(16, output_stride), output_stride]


@pytest.mark.parametrize("norm", ["SyncBN", "naiveSyncBN"])
@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_converted_norm_is_the_same_function(name, norm):
    plain, converted = TimmBackbone(name), TimmBackbone(name, norm=norm)
    randomize(plain)
    converted.load_state_dict(plain.state_dict())
    assert not any(type(module) is nn.BatchNorm2d for module in converted.modules())
    image = torch.randn(2, 3, 64, 64)
    for mode in (False, True):
        plain.train(mode), converted.train(mode)
        with torch.no_grad():
            torch.testing.assert_close(converted(image), plain(image), rtol=1e-3, atol=1e-3)
    ours, theirs = converted.state_dict(), plain.state_dict()
    for key in (key for key in theirs if key.endswith("running_mean")):
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-3, atol=1e-4)


def test_naive_sync_keeps_fused_activations():
    fused = [m for m in TimmBackbone("tf_efficientnet_lite0").modules() if type(m).__name__ == "BatchNormAct2d"]
    converted = TimmBackbone("tf_efficientnet_lite0", norm="naiveSyncBN").modules()
    synced = [m for m in converted if isinstance(m, _NaiveSyncBatchNormAct)]
    assert [type(m.act) for m in synced] == [type(m.act) for m in fused]
    assert {m.eps for m in synced} == {m.eps for m in fused}


@pytest.mark.parametrize(
    "opts, message",
    [
        (["MODEL.TIMM.NAME", "tf_eficientnet_lite0"], "MODEL.TIMM.NAME: .* tf_efficientnet_lite0"),
        (["MODEL.TIMM.NAME", "inception_v3"], "MODEL.TIMM.NAME: inception_v3 gives no four feature maps"),
        (["MODEL.TIMM.NAME", "vgg11"], "MODEL.TIMM.NAME: vgg11 gives no four feature maps"),
        (["MODEL.BACKBONE.FREEZE_AT", 2], "FREEZE_AT: timm backbones cannot be frozen"),
        (["MODEL.RESNETS.NORM", "GN"], "NORM: not 'GN' for timm"),
    ],
)
def test_timm_errors(make_cfg, opts, message):
    with pytest.raises(InputError, match=message):
        build_model(make_cfg(*opts))
