"""SemiVL's network against a plain one: MaskCLIP's features, the decoder; CLIP's texts, made once and cached."""

import sys

import plain_vlg
import pytest
import torch
from helpers import SMALL, SMALL_CLIP
from openai_clip import as_openai_clip, text_encoder
from safetensors.torch import save_file

from wpl_d2 import get_cfg
from wpl_d2.checkpoint.loading import load_initial_weights
from wpl_d2.modeling import MaskCLIPBackbone, build_model, text_embeddings
from wpl_d2.utils.errors import InputError

DIM = 64
OPTS = [*SMALL, *SMALL_CLIP, "MODEL.MASKCLIP.DIM", DIM, "MODEL.SEM_SEG_HEAD.CONVS_DIM", DIM]
PHRASES = [["ground", "soil"], ["box"], ["ball"]]


def cfg_of(*opts):
    cfg = get_cfg()
    cfg.merge_from_list([*OPTS, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, "MODEL.DETECTOR.CLASSES", (1,), *opts])
    return cfg


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randn(2, 3, 128, 80)


@torch.no_grad()
def test_maps_are_the_value_paths_of_timms_blocks(images):
    backbone = MaskCLIPBackbone("test_vit", DIM, (1, 3)).eval()
    body, entering = backbone.body, {}
    for number in (1, 3, 5):
        body.blocks[number].register_forward_pre_hook(lambda _, args, number=number: entering.update({number: args[0]}))
    body.forward_features(images)
    taken = dict(entering)  # the last block is not called by the backbone
    found = backbone(images)
    assert {name: tuple(maps.shape[1:]) for name, maps in found.items()} == {
        **dict.fromkeys(("res3", "res4"), (64, 8, 5)),
        "res5": (DIM, 8, 5),
    }
    for name, number in (("res3", 1), ("res4", 3), ("res5", 5)):
        token = plain_vlg.value_path(body.blocks[number], taken[number][1, 1 + 5 * 6 + 2])
        if number == 5:
            token = body.head(body.norm(token))
            token = token / token.norm()
        torch.testing.assert_close(found[name][1, :, 6, 2], token, rtol=1e-4, atol=1e-5)


def test_attention_and_position_embeddings_alone_are_trained():
    backbone = MaskCLIPBackbone("test_vit", DIM, (1, 3))
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert trained == {"body.pos_embed"} | {
        f"body.blocks.{number}.attn.{part}.{kind}"
        for number in range(6)
        for part in ("qkv", "proj")
        for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("layers", [(1, 3), (3,)], ids=["CLIP's skips", "a ResNet's skip"])
@torch.no_grad()
def test_the_decoder_equals_a_plain_one(images, layers):
    torch.manual_seed(1)
    model = build_model(cfg_of("MODEL.MASKCLIP.LAYERS", layers)).eval()
    features = model.encode(images)
    assert list(features) == (["res3", "res4", "res5"] if len(layers) == 2 else ["res2", "res4", "res5"])
    output = model.decode(features, (50, 83))
    assert torch.equal(output.embedding, features["res5"])
    finer, coarser, image = (maps[1] for maps in features.values())
    expected = plain_vlg.decode(model.sem_seg_head.state_dict(), [coarser, finer], image, (50, 83))
    torch.testing.assert_close(output.logits[1], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_clips_own_logits_are_those_of_the_best_concept(images):
    model = build_model(cfg_of("MODEL.VLG.CONCEPTS", PHRASES)).eval()
    embedding, concepts = model.encode(images)["res5"], model.sem_seg_head.concepts
    cosines = torch.stack([(embedding * concept[:, None, None]).sum(dim=1) for concept in concepts], dim=1)
    expected = torch.stack([cosines[:, :2].amax(dim=1), cosines[:, 2], cosines[:, 3]], dim=1)
    torch.testing.assert_close(model.sem_seg_head.clip_logits(embedding, (8, 5)), 100 * expected)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(3)
    body = MaskCLIPBackbone("test_vit", DIM).body.state_dict()
    weights = as_openai_clip({key: value + 0.01 for key, value in body.items()}) | text_encoder(DIM)
    save_file(weights, tmp_path / "clip.safetensors")
    return str(tmp_path / "clip.safetensors"), weights


def loaded(path, *opts):
    cfg = cfg_of("MODEL.WEIGHTS", path, "MODEL.VLG.TEXTS", PHRASES, *opts)
    model = build_model(cfg)
    load_initial_weights(model, cfg)
    return model


def test_texts_come_from_the_weights_and_then_from_the_cache(weights, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    path, tensors = weights
    model = loaded(path)
    body, head = model.backbone.body.state_dict(), model.sem_seg_head
    assert torch.equal(body["blocks.3.attn.qkv.bias"], tensors["visual.transformer.resblocks.3.attn.in_proj_bias"])
    assert torch.equal(body["head.weight"], tensors["visual.proj"].T)
    names = {"layers": 2, "width": 64, "heads": 1}
    config = {"embed_dim": DIM, "vision_cfg": {"layers": 1, "width": 64}, "text_cfg": names, "quick_gelu": True}
    clip = open_clip.CLIP(**config).eval()
    clip.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("visual.")}, strict=False)
    sentences = [f"a photo of a {phrase}" for phrase in ("ground", "soil", "box", "ball")]
    with torch.no_grad():
        expected = clip.encode_text(open_clip.tokenize(sentences))
    unit, means = torch.nn.functional.normalize, torch.stack([expected[:2].mean(dim=0), *expected[2:]])
    torch.testing.assert_close(head.concepts, unit(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.texts, unit(means), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(text_embeddings, "_encode", None)  # not called again
    assert torch.equal(loaded(path).sem_seg_head.concepts, head.concepts)
    # The head without phrases knows the classes by their names, which need the encoder again.
    with pytest.raises(TypeError):
        loaded(path, "MODEL.VLG.TEXTS", [])


def test_what_the_texts_lack_is_named(weights, monkeypatch, tmp_path):
    path, tensors = weights
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(InputError, match=r"^open_clip: is not installed.*wpl_d2\[clip\]"):
        loaded(path)
    with pytest.raises(InputError, match=r"^open_clip://ViT-B-16/openai: open_clip is not installed.*wpl_d2\[clip\]"):
        loaded("open_clip://ViT-B-16/openai")
    save_file({k: v for k, v in tensors.items() if k.startswith("visual.")}, tmp_path / "image.safetensors")
    with pytest.raises(InputError, match=r"image.safetensors: has no text encoder.*open_clip://ViT-B-16/openai"):
        loaded(str(tmp_path / "image.safetensors"))


def test_a_download_is_named_by_model_and_tag():
    pytest.importorskip("open_clip")
    with pytest.raises(InputError, match=r"open_clip has no ViT-B-16/openia; did you mean .*ViT-B-16/openai"):
        loaded("open_clip://ViT-B-16/openia")


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.MASKCLIP.LAYERS", (0, 5)], r"MODEL\.MASKCLIP\.LAYERS: \(0, 5\).* 0 to 4"),
        (["MODEL.MASKCLIP.LAYERS", (0, 1, 2)], r"MODEL\.MASKCLIP\.LAYERS"),
        (["MODEL.MASKCLIP.DIM", 32], "VLGHead reads two skips and embeddings of 64 channels"),
        (["MODEL.BACKBONE.NAME", "build_vit_backbone"], "VLGHead reads two skips"),
        (["MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 96], "a multiple of 64"),
        (["MODEL.VLG.TEXTS", [["a"], ["b"]]], r"MODEL\.VLG\.TEXTS: phrases of 2 classes, and there are 3"),
        (["MODEL.VLG.CONCEPTS", ["a", "b", "c"]], r"MODEL\.VLG\.CONCEPTS"),
        (["MODEL.VLG.TEMPLATE", "a photo"], r"MODEL\.VLG\.TEMPLATE"),
    ],
)
def test_what_does_not_fit_is_named(opts, message):
    with pytest.raises(InputError, match=message):
        build_model(cfg_of(*opts))


def test_the_resnet_beside_clip_begins_with_its_own_weights(weights, tmp_path):
    pytest.importorskip("open_clip")
    path, _ = weights
    stage = build_model(cfg_of("MODEL.MASKCLIP.LAYERS", (3,))).backbone.conv.state_dict()
    # As a whole ResNet's file has further stages.
    torch.save({**stage, "res3.0.conv1.weight": torch.zeros(128, 256, 1, 1)}, tmp_path / "resnet.pth")
    model = loaded(path, "MODEL.MASKCLIP.LAYERS", (3,), "MODEL.MASKCLIP.CONV_WEIGHTS", str(tmp_path / "resnet.pth"))
    found = model.backbone.conv.state_dict()
    assert all(torch.equal(found[name], value) for name, value in stage.items())
