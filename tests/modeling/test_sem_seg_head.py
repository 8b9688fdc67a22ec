import pytest
import torch
import torch.nn.functional as F
from detectron2.projects.deeplab import DeepLabV3PlusHead

from wpl_d2 import build_model
from wpl_d2.modeling import EmbeddingDeepLabV3PlusHead
from wpl_d2.utils.errors import InputError


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


def decode_by_hand(head, features, align_corners):
    """The embedding, from the head's parts and a resize of one's own."""
    *finer, coarsest = head.in_features
    decoded = head.decoder[coarsest]["project_conv"](features[coarsest])
    for name in reversed(finer):
        skip = head.decoder[name]["project_conv"](features[name])
        decoded = F.interpolate(decoded, skip.shape[2:], mode="bilinear", align_corners=align_corners)
        decoded = head.decoder[name]["fuse_conv"](torch.cat([skip, decoded], dim=1))
    return decoded


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize(
    ("levels", "channels"), [(["res2", "res5"], [48]), (["res3", "res5"], [24]), (["res2", "res3", "res5"], [48, 24])]
)
@torch.no_grad()
def test_one_key_says_how_all_maps_are_resized(make_cfg, levels, channels, separable):
    opts = ["MODEL.SEM_SEG_HEAD.IN_FEATURES", levels, "MODEL.SEM_SEG_HEAD.PROJECT_FEATURES", levels[:-1]]
    opts += ["MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", channels]
    opts += ["MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV", separable]
    found = {}
    for align in (False, True):
        model = build_model(make_cfg(*opts, "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS", align)).eval()
        features = model.encode(torch.randn(2, 3, 65, 97, generator=torch.Generator().manual_seed(0)))
        found[align] = model.decode(features, (65, 97)).embedding
        assert torch.equal(found[align], decode_by_hand(model.sem_seg_head, features, align))
    assert not torch.allclose(found[False], found[True], atol=1e-5)


def test_by_default_the_decoder_is_detectron2s(make_cfg):
    cfg = make_cfg("MODEL.SEM_SEG_HEAD.NORM", "BN")
    shape = build_model(cfg).backbone.output_shape()
    states = []
    for kind in (DeepLabV3PlusHead, EmbeddingDeepLabV3PlusHead):
        torch.manual_seed(0)
        states.append(kind(cfg, shape).state_dict())
    theirs, ours = states
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("norm", ["BN", "GN", "FrozenBN", ""])
def test_the_pooling_is_normalized_if_asked_for(make_cfg, norm):
    opts = ["MODEL.SEM_SEG_HEAD.NORM", norm, "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", [64]]
    head = build_model(make_cfg(*opts, "MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM", True)).sem_seg_head
    branches = head.decoder["res5"]["project_conv"].convs
    pooling, other = branches[-1][1], branches[0]
    assert type(pooling.norm) is type(other.norm)
    assert (pooling.bias is None) == (other.bias is None) == bool(norm)


@pytest.mark.parametrize("norm", ["GN", "FrozenBN", ""])
def test_a_single_image_trains_where_no_norm_needs_a_batch(make_cfg, norm):
    opts = ["MODEL.SEM_SEG_HEAD.NORM", norm, "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", [64]]
    model = build_model(make_cfg(*opts, "MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM", True))
    model.decode(model.encode(torch.randn(1, 3, 33, 65)), (33, 65)).logits.square().mean().backward()
    pooling = model.sem_seg_head.decoder["res5"]["project_conv"].convs[-1][1]
    assert pooling.weight.grad.isfinite().all() and pooling.weight.grad.any()


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_the_kernel_that_fuses_aspp(make_cfg, kernel):
    model = build_model(make_cfg("MODEL.SEM_SEG_HEAD.ASPP_FUSE_KERNEL", kernel)).eval()
    aspp = model.sem_seg_head.decoder["res5"]["project_conv"]
    assert aspp.project.weight.shape == (256, 5 * 256, kernel, kernel)
    assert aspp(torch.randn(1, 512, 5, 7)).shape == (1, 256, 5, 7)


@pytest.mark.parametrize(
    ("biased", "expected"),
    [
        ((), set()),
        (("project",), {"res2.project_conv"}),
        (("fuse",), {"res2.fuse_conv.0", "res2.fuse_conv.1"}),
        (("project", "fuse"), {"res2.project_conv", "res2.fuse_conv.0", "res2.fuse_conv.1"}),
    ],
)
def test_biases_before_norms(make_cfg, biased, expected):
    decoder = build_model(make_cfg("MODEL.SEM_SEG_HEAD.BIASED_CONVS", biased)).sem_seg_head.decoder
    found = {name.removesuffix(".bias") for name, _ in decoder.named_parameters() if name.endswith(".bias")}
    assert {name for name in found if not name.endswith("norm")} == expected | {"res5.project_conv.convs.4.1"}


@pytest.mark.parametrize("separable", [False, True])
@torch.no_grad()
def test_whole_channels_are_dropped_in_training(make_cfg, separable):
    opts = ["MODEL.SEM_SEG_HEAD.DECODER_DROPOUT", 0.25, "MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV", separable]
    model = build_model(make_cfg(*opts))
    head, seen = model.sem_seg_head, []
    fuse = head.decoder["res2"]["fuse_conv"]
    places = [head.decoder["res5"]["project_conv"], head.dropout] + ([] if separable else [fuse[0]])
    for place in places:
        place.register_forward_hook(lambda module, inputs, output: seen.append(output))
    features = model.encode(torch.randn(4, 3, 65, 65))
    seen.append(model.decode(features, (65, 65)).embedding)
    *dropped, embedding = ((output.flatten(2) == 0).all(2).float().mean().item() for output in seen)
    assert dropped == pytest.approx([0.25] * len(places), abs=0.06)
    assert embedding < 0.02
    model.eval()
    assert torch.equal(model.decode(features, (65, 65)).logits, model.decode(features, (65, 65)).logits)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("BIASED_CONVS", ("projekt",), "BIASED_CONVS: 'projekt' is not known; did you mean project"),
        ("INIT", "pytorh", "INIT: 'pytorh' is not known; did you mean pytorch"),
        ("NORM", "LN", "NORM: 'LN' is not known"),
    ],
)
def test_wrong_names(make_cfg, key, value, message):
    with pytest.raises(InputError, match=message):
        build_model(make_cfg(f"MODEL.SEM_SEG_HEAD.{key}", value))
