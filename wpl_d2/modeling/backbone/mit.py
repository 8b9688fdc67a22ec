"""SegFormer's encoders MiT-B0 to B5, as timm's models mit_b0 to mit_b5, and the layouts of their published files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.pvt_v2 import PyramidVisionTransformerV2, checkpoint_filter_fn
from torch import Tensor, nn

_DEPTHS = {
    "mit_b0": (2, 2, 2, 2),
    "mit_b1": (2, 2, 2, 2),
    "mit_b2": (3, 4, 6, 3),
    "mit_b3": (3, 4, 18, 3),
    "mit_b4": (3, 8, 27, 3),
    "mit_b5": (3, 6, 40, 3),
}
_SIZES: dict[str, Any] = {
    "num_heads": (1, 2, 5, 8),
    "sr_ratios": (8, 4, 2, 1),
    "mlp_ratios": (4, 4, 4, 4),
    "drop_path_rate": 0.1,
}
_PUBLISHED = "patch_embed1.proj.weight"
_HUGGING_FACE = "encoder.patch_embeddings.0.proj.weight"
# Hugging Face's names of a block's parts, and timm's.
_PARTS = {
    "layer_norm_1": "norm1",
    "layer_norm_2": "norm2",
    "attention.self.query": "attn.q",
    "attention.self.key": "attn.k",
    "attention.self.value": "attn.v",
    "attention.self.sr": "attn.sr",
    "attention.self.layer_norm": "attn.norm",
    "attention.output.dense": "attn.proj",
    "mlp.dense1": "mlp.fc1",
    "mlp.dwconv.dwconv": "mlp.dwconv",
    "mlp.dense2": "mlp.fc2",
}


class MixTransformer(PyramidVisionTransformerV2):
    """The mix transformer of SegFormer (Xie et al., NeurIPS 2021, section 3.1), with layers of timm's PVTv2.

    The two have the same layers: overlapping patches, attention to a map that a strided convolution has reduced, a
    depthwise convolution in each MLP, a norm at the end of each stage. They differ in sizes alone.
    """

    def __init__(self, **options: Any) -> None:
        """Build the layers; maps that are smaller than the reduction's kernel are padded, where timm's fail.

        Args:
            options: arguments of timm's `PyramidVisionTransformerV2`.
        """
        super().__init__(**options)
        for name, module in self.named_modules():
            if name.endswith("attn.sr") and isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(_fill_kernel)


def from_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a MiT in the layout of SegFormer's files, or in Hugging Face's, under timm's names.

    Args:
        weights: as read; of another model they stay as they are.
    """
    weights = {key.removeprefix("segformer."): value for key, value in weights.items()}
    if _HUGGING_FACE in weights:
        return _join_keys_and_values({_timm_name(key): value for key, value in weights.items()})
    return checkpoint_filter_fn(weights, None) if _PUBLISHED in weights else weights


def _fill_kernel(conv: nn.Conv2d, inputs: tuple[Tensor]) -> Tensor:
    (maps,) = inputs
    # Where a side is shorter than the kernel at least what it lacks, else 0, in arithmetic that all tracers follow.
    height, width = (
        kernel // side * (kernel - side) for side, kernel in zip(maps.shape[2:], conv.kernel_size, strict=True)
    )
    return F.pad(maps, (0, width, 0, height))


def _timm_name(key: str) -> str:
    """timm's name of a tensor in Hugging Face's layout, but with key and value apart."""
    block = re.fullmatch(r"encoder\.block\.(\d)\.(\d+)\.(.+)\.(weight|bias)", key)
    if block:
        return f"stages.{block[1]}.blocks.{block[2]}.{_PARTS.get(block[3], block[3])}.{block[4]}"
    key = key.replace("encoder.patch_embeddings.0.", "patch_embed.")
    key = re.sub(r"encoder\.patch_embeddings\.(\d)\.", r"stages.\1.downsample.", key)
    return re.sub(r"encoder\.layer_norm\.(\d)\.", r"stages.\1.norm.", key).replace(".layer_norm.", ".norm.")


def _join_keys_and_values(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for key in [key for key in weights if ".attn.k." in key]:
        value = weights.pop(key.replace(".attn.k.", ".attn.v."), None)
        if value is not None:
            weights[key.replace(".attn.k.", ".attn.kv.")] = torch.cat([weights.pop(key), value])
    return weights


def _entry_point(name: str) -> Callable[..., MixTransformer]:
    def create(pretrained: bool = False, output_stride: int = 32, **options: Any) -> MixTransformer:
        if output_stride != 32:
            raise RuntimeError("its strides are 4, 8, 16 and 32")
        widths = (32, 64, 160, 256) if name == "mit_b0" else (64, 128, 320, 512)
        options = {"depths": _DEPTHS[name], "embed_dims": widths, **_SIZES, **options}
        maps = {"flatten_sequential": True, "out_indices": (0, 1, 2, 3)}
        return build_model_with_cfg(MixTransformer, name, pretrained, feature_cfg=maps, **options)

    create.__name__ = name
    return create


# Where timm's registry looks for them.
default_cfgs = generate_default_cfgs(
    {
        name: {
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
        for name in _DEPTHS
    }
)
for _name in _DEPTHS:
    register_model(_entry_point(_name))
