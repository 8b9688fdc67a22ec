"""SegFormer's mix transformers against plain ones, in the layouts that they are published in, and its decoder."""

import re

import plain_segformer
import pytest
import timm
import torch
from detectron2.layers import ShapeSpec
from helpers import SMALL_MIT
from safetensors.torch import save_file

from wpl_d2.modeling import SegFormerHead, TimmBackbone, build_model, load_backbone_weights
from wpl_d2.utils.errors import InputError

B0 = ((2, 2, 2, 2), (32, 64, 160, 256))
# The published names of parts, and Hugging Face's.
PARTS = {
    "attn.q.": "attention.self.query.",
    "attn.sr.": "attention.self.sr.",
    "attn.norm.": "attention.self.layer_norm.",
    "attn.proj.": "attention.output.dense.",
    "mlp.fc1.": "mlp.dense1.",
    "mlp.fc2.": "mlp.dense2.",
    "norm1.": "layer_norm_1.",
    "norm2.": "layer_norm_2.",
    "attn.k.": "attention.self.key.",
    "attn.v.": "attention.self.value.",
}


def in_hugging_faces_layout(published):
    weights = {}
    for key, value in published.items():
        if ".attn.kv." in key:
            first, second = value.chunk(2)
            weights |= {key.replace(".kv.", ".k."): first.clone(), key.replace(".kv.", ".v."): second.clone()}
        else:
            weights[key] = value
    renamed = {}
    for key, value in weights.items():
        key = key.replace("head.", "classifier.")
        key = re.sub(r"^norm(\d)", lambda found: f"layer_norm.{int(found[1]) - 1}", key)
        key = re.sub(r"^patch_embed(\d)", lambda found: f"patch_embeddings.{int(found[1]) - 1}", key)
        key = re.sub(r"(patch_embeddings\.\d)\.norm", r"\1.layer_norm", key)
        key = re.sub(r"^block(\d)", lambda found: f"block.{int(found[1]) - 1}", key)
        if key.startswith("block."):
            part = next((part for part in PARTS if re.search(rf"\d\.{re.escape(part)}", key)), None)
            key = key.replace(part, PARTS[part]) if part else key
        renamed[key if key.startswith("classifier") else f"segformer.encoder.{key}"] = value
    return renamed


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(0)
    return plain_segformer.random_weights(*B0)


@pytest.mark.parametrize("layout", ["published", "hugging_face"])
@torch.no_grad()
def test_weights_in_either_layout_give_the_published_features(published, layout, tmp_path):
    file = tmp_path / "mit_b0.safetensors"
    save_file(published if layout == "published" else in_hugging_faces_layout(published), file)
    backbone = TimmBackbone("mit_b0", 32).eval()
    load_backbone_weights(backbone, str(file))
    for size in ((64, 96), (67, 109)):
        images = torch.randn(2, 3, *size)
        expected = plain_segformer.encode(published, images)
        for found, maps in zip(backbone(images).values(), expected, strict=True):
            torch.testing.assert_close(found, maps, rtol=1e-4, atol=1e-4)
    assert [shape.channels for shape in backbone.output_shape().values()] == list(B0[1])


def test_a_file_that_lacks_values_does_not_fit(published, tmp_path):
    weights = in_hugging_faces_layout(published)
    del weights["segformer.encoder.block.1.0.attention.self.value.bias"]
    torch.save(weights, tmp_path / "mit_b0.pth")
    with pytest.raises(InputError, match=r"stages_1\.blocks\.0\.attn\.kv\.bias is missing"):
        load_backbone_weights(TimmBackbone("mit_b0", 32), str(tmp_path / "mit_b0.pth"))


# Encoders of the paper's table 6 in millions of weights, all their norms and biases included.
@pytest.mark.parametrize(
    ("name", "millions"),
    [("mit_b0", 3.3), ("mit_b1", 13.2), ("mit_b2", 24.2), ("mit_b3", 44.1), ("mit_b4", 60.8), ("mit_b5", 81.4)],
)
def test_sizes(name, millions):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
        dropped = timm.create_model(name, num_classes=0, drop_path_rate=0.0)
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6, 1) == millions
    assert model.stages[-1].blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)
    assert isinstance(dropped.stages[-1].blocks[-1].drop_path1, torch.nn.Identity)


@torch.no_grad()
def test_images_smaller_than_the_reductions_kernel(published):
    backbone = TimmBackbone("mit_b0", 32).eval()
    whole = torch.randn(1, 3, 32, 32)
    assert [maps.shape[-1] for maps in backbone(whole[..., :1, :1]).values()] == [1, 1, 1, 1]
    features = backbone(whole[..., :20, :31])
    assert features["res2"].shape[2:] == (5, 8) and all(maps.isfinite().all() for maps in features.values())


def test_another_output_stride_is_refused():
    with pytest.raises(InputError, match=r"mit_b0 gives no four .* 4, 8, 16 and 32.* another MODEL.BACKBONE.OUTPUT"):
        TimmBackbone("mit_b0", 16)


@torch.no_grad()
def test_the_decoder_is_the_published_one():
    torch.manual_seed(1)
    widths = {"res2": 8, "res3": 16, "res4": 24, "res5": 32}
    shapes = {name: ShapeSpec(channels=width) for name, width in widths.items()}
    head = SegFormerHead(shapes, num_classes=5, width=12, norm="BN", dropout=0.1, align_corners=False).eval()
    norm = head.fuse.norm
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.uniform_(0.5, 1.5)
    sides = ((12, 17), (6, 9), (3, 5), (2, 3))
    maps = [torch.randn(2, width, *side) for width, side in zip(widths.values(), sides, strict=True)]
    output = head(dict(zip(widths, maps, strict=True)), (47, 66))
    embedding, logits = plain_segformer.decode(
        [(project.weight, project.bias) for project in head.projects],
        head.fuse.weight,
        (norm.weight, norm.bias, norm.running_mean, norm.running_var),
        (head.predictor.weight, head.predictor.bias),
        maps,
        (47, 66),
    )
    torch.testing.assert_close(output.embedding, embedding)
    torch.testing.assert_close(output.logits, logits)
    assert head.merge(dict(zip(widths, maps, strict=True))).shape == (2, head.merged_channels, 12, 17)


def test_dropout_is_behind_the_embedding(make_cfg):
    torch.manual_seed(0)
    model = build_model(make_cfg(*SMALL_MIT, "MODEL.SEM_SEG_HEAD.DECODER_DROPOUT", 1.0))
    output = model.decode(model.encode(torch.randn(2, 3, 64, 64)), (64, 64))
    assert output.embedding.any()
    bias = model.sem_seg_head.predictor.bias[:, None, None].expand_as(output.logits)
    torch.testing.assert_close(output.logits, bias)
