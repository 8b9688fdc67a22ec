"""Weights in the layout of OpenAI's CLIP."""

import torch

_NAMES = {
    "blocks.": "transformer.resblocks.",
    ".norm1.": ".ln_1.",
    ".norm2.": ".ln_2.",
    ".attn.proj.": ".attn.out_proj.",
    ".attn.qkv.": ".attn.in_proj_",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
    "patch_embed.proj.": "conv1.",
    "norm_pre.": "ln_pre.",
    "pos_embed": "positional_embedding",
    "cls_token": "class_embedding",
}


def as_openai_clip(weights):
    """timm's weights of a CLIP image encoder, its head being the projection, under OpenAI's names."""
    given = {}
    for key, value in weights.items():
        key = key.replace("norm.", "ln_post.") if key.startswith("norm.") else key
        for ours, theirs in _NAMES.items():
            key = key.replace(ours, theirs)
        given[f"visual.{key}"] = value.flatten() if key == "class_embedding" else value
    given["visual.positional_embedding"] = given["visual.positional_embedding"].squeeze(0)
    given["visual.proj"] = given.pop("visual.head.weight").T.contiguous()
    del given["visual.head.bias"]
    return given | {"logit_scale": torch.zeros(())}


def text_encoder(dim, width=64, layers=2):
    """Random weights of CLIP's text encoder, for embeddings of a length, under OpenAI's names."""
    shapes = {"token_embedding.weight": (49408, width), "positional_embedding": (77, width)}
    shapes |= {"text_projection": (width, dim), "ln_final.weight": (width,), "ln_final.bias": (width,)}
    for number in range(layers):
        block = f"transformer.resblocks.{number}"
        matrices = {"attn.in_proj_": (3 * width, width), "attn.out_proj.": (width, width)}
        matrices |= {"mlp.c_fc.": (4 * width, width), "mlp.c_proj.": (width, 4 * width)}
        for name, shape in matrices.items():
            shapes |= {f"{block}.{name}weight": shape, f"{block}.{name}bias": shape[:1]}
        shapes |= {f"{block}.{norm}.{kind}": (width,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
    return {name: 0.3 * torch.randn(shape) for name, shape in shapes.items()}
