import pytest
import torch
import torch.nn.functional as F

from wpl_d2 import build_model


@pytest.mark.parametrize("size", [(65, 97), (64, 64), (321, 321)])
def test_logits_have_exactly_the_image_size(make_cfg, size):
    model = build_model(make_cfg()).eval()
    with torch.no_grad():
        output = model.decode(model.encode(model.normalize(torch.zeros(1, 3, *size))), size)
    assert output.logits.shape == (1, 5, *size)
    assert output.embedding.shape == (1, 256, -(-size[0] // 4), -(-size[1] // 4))


@pytest.mark.parametrize("align_corners", [False, True])
def test_logits_are_the_resized_predictions_of_the_embedding(make_cfg, align_corners):
    model = build_model(make_cfg("MODEL.SEM_SEG_HEAD.ALIGN_CORNERS", align_corners)).eval()
    with torch.no_grad():
        output = model.decode(model.encode(torch.randn(2, 3, 65, 97)), (65, 97))
        low = model.sem_seg_head.predictor(output.embedding)
        expected = F.interpolate(low, (65, 97), mode="bilinear", align_corners=align_corners)
    assert (output.embedding >= 0).all() and output.embedding.any()
    assert torch.equal(output.logits, expected)


def test_detectron2s_crop_does_not_restrict_the_size(make_cfg):
    cfg = make_cfg("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "relative_range")
    model = build_model(cfg).eval()
    assert model.decode(model.encode(torch.randn(1, 3, 65, 33)), (65, 33)).logits.shape == (1, 5, 65, 33)


def test_size_of_the_published_model(make_cfg):
    """UniMatch's DeepLabv3+ on ResNet-50: 40.5 M parameters."""
    cfg = make_cfg("MODEL.BACKBONE.NAME", "build_unified_resnet_backbone", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 21)
    count = sum(parameter.numel() for parameter in build_model(cfg).parameters())
    assert round(count / 1e6, 1) == 40.5
