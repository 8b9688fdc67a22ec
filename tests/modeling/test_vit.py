"""Vision transformers against timm's own features and DINOv2's and CLIP's layouts; DPT's head against a plain one."""

import plain_dpt
import pytest
import timm
import torch
from helpers import SMALL, SMALL_VIT
from openai_clip import as_openai_clip
from safetensors.torch import save_file

from wpl_d2 import get_cfg
from wpl_d2.checkpoint.loading import load_initial_weights
from wpl_d2.modeling import ViTBackbone, build_model
from wpl_d2.modeling.backbone.vit import patches_along
from wpl_d2.utils.errors import InputError


def cfg_of(*opts):
    cfg = get_cfg()
    cfg.merge_from_list(
        [*SMALL, *SMALL_VIT, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, "MODEL.DETECTOR.CLASSES", (1,), *opts]
    )
    return cfg


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randn(2, 3, 48, 80)


def test_maps_are_the_tokens_of_timms_blocks(images):
    backbone = ViTBackbone("test_vit", (0, 2, 3, 5)).eval()
    seen = {}
    for number in backbone.layers:
        backbone.body.blocks[number].register_forward_hook(lambda *call, number=number: seen.update({number: call[2]}))
    last = backbone.body.forward_features(images)
    found = backbone(images)
    for name, number in zip(("res2", "res3", "res4", "res5"), (0, 2, 3, 5), strict=True):
        tokens = backbone.body.norm(seen[number])[:, backbone.body.num_prefix_tokens :]
        assert torch.equal(found[name], tokens.transpose(1, 2).unflatten(2, (3, 5)))
    torch.testing.assert_close(found["res5"].flatten(2).transpose(1, 2), last[:, backbone.body.num_prefix_tokens :])
    assert backbone.output_shape()["res2"].stride == backbone.patch == 16


def test_without_layers_the_last_of_each_quarter_is_taken():
    assert ViTBackbone("vit_tiny_patch16_224").layers == (2, 5, 8, 11)


def test_images_that_the_patch_does_not_divide_are_resized(images):
    backbone = ViTBackbone("test_vit").eval()
    other = torch.nn.functional.interpolate(images, (48, 64), mode="bilinear", align_corners=True)
    odd = torch.randn(1, 3, 39, 70)
    assert backbone(odd)["res5"].shape[-2:] == (2, 4)
    whole = torch.nn.functional.interpolate(odd, (32, 64), mode="bilinear", align_corners=True)
    assert torch.equal(backbone(odd)["res4"], backbone(whole)["res4"])
    assert backbone(other)["res2"].shape == (2, 64, 3, 4)


@pytest.mark.parametrize("patch", [14, 16])
def test_patches_along_a_side_are_counted_as_python_rounds(patch):
    sides = range(1, 20 * patch)
    assert [patches_along(side, patch) for side in sides] == [max(1, round(side / patch)) for side in sides]


def published_checkpoint(model, width=32, channels=(8, 16, 24, 32)):
    """A checkpoint as UniMatch V2's code writes it, of random weights."""
    head = plain_dpt.random_weights(3, 64, width, channels)
    body = {f"backbone.{key}": value + 0.1 for key, value in model.backbone.body.state_dict().items()}
    return head, {f"module.{key}": value for key, value in (head | body).items()}


def test_a_published_model_is_loaded_whole(images, tmp_path):
    torch.manual_seed(1)
    model = build_model(cfg_of()).eval()
    head, published = published_checkpoint(model)
    expected_body = model.backbone.body.state_dict()["blocks.3.attn.qkv.weight"] + 0.1
    torch.save({"model": published, "epoch": 3}, tmp_path / "latest.pth")
    load_initial_weights(model, cfg_of("MODEL.WEIGHTS", str(tmp_path / "latest.pth")))
    torch.testing.assert_close(model.backbone.body.state_dict()["blocks.3.attn.qkv.weight"], expected_body)
    with torch.no_grad():
        features = model.encode(images)
        output = model.decode(features, (50, 83))
        embedding, logits = plain_dpt.decode(head, list(features.values()), (50, 83))
    assert output.embedding.shape == (2, 32, 24, 40)
    torch.testing.assert_close(output.embedding, embedding, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.logits, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("file", ["dinov2.pth", "timm.safetensors"])
def test_weights_of_other_layouts(file, tmp_path, images):
    name = "vit_small_patch14_dinov2"
    source = timm.create_model(name, num_classes=0, img_size=70).eval()
    weights = {key: value + 0.01 for key, value in source.state_dict().items()}
    if file == "dinov2.pth":
        torch.save(weights | {"mask_token": torch.zeros(1, 384)}, tmp_path / file)
    else:
        save_file(weights, tmp_path / file)
    backbone = ViTBackbone(name)
    model = torch.nn.Module()
    model.backbone = backbone
    load_initial_weights(model, cfg_of("MODEL.TIMM.NAME", name, "MODEL.WEIGHTS", str(tmp_path / file)))
    found = backbone.body.state_dict()
    # The position embeddings are for images of another size.
    assert all(torch.equal(found[key], value) for key, value in weights.items() if key != "pos_embed")
    assert found["pos_embed"].shape[1] == 1 + 37**2


@pytest.mark.slow
def test_weights_of_openais_clip(tmp_path):
    name = "vit_base_patch16_clip_224"
    model = torch.nn.Module()
    model.backbone = ViTBackbone(name)
    weights = {key: value + 0.01 for key, value in model.backbone.body.state_dict().items()}
    head = {"head.weight": torch.zeros(512, 768), "head.bias": torch.zeros(512)}
    torch.save(as_openai_clip(weights | head), tmp_path / "clip.pth")
    load_initial_weights(model, cfg_of("MODEL.TIMM.NAME", name, "MODEL.WEIGHTS", str(tmp_path / "clip.pth")))
    found = model.backbone.body.state_dict()
    assert all(torch.equal(found[key], value) for key, value in weights.items())


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.TIMM.NAME", "resnet18"], "is no plain vision transformer"),
        (["MODEL.TIMM.NAME", "test_vitt"], "did you mean test_vit"),
        (["MODEL.VIT.LAYERS", (0, 1, 2, 3)], "5 is the last"),
        (["MODEL.VIT.LAYERS", (1, 2, 5)], "MODEL.VIT.LAYERS"),
        (["MODEL.TIMM.NAME", "vit_small_patch14_dinov2", "MODEL.DETECTOR.MODE", "shared"], "this backbone's have 14"),
        (["MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "test_resnet"], "DPTHead reads four maps"),
    ],
)
def test_what_does_not_fit_is_named(opts, message):
    with pytest.raises(InputError, match=message):
        build_model(cfg_of(*opts))
