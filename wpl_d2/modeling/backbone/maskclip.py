"""MaskCLIP: CLIP's image encoder for dense features, and the skips that SemiVL takes beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor

from ...utils.errors import InputError
from .resnet import build_unified_resnet_backbone
from .timm import FEATURES
from .vit import TimmViT


class MaskCLIPBackbone(TimmViT):
    """CLIP's embedding of each patch (MaskCLIP, Zhou et al., ECCV 2022) as "res5", of length 1.

    It is the last block's value path, normed and projected into the space that images and texts share. A block's value
    path is the block with a token's own value in place of the mean that attention makes of all tokens' values.

    The skips of SemiVL are the value paths of earlier blocks, "res3" and "res4", or "res4" behind the first stage of a
    ResNet, "res2". Of the transformer only attention and position embeddings are trained.

    Attributes:
        layers: the blocks of the skips, from 0.
        conv: the ResNet; None where there is no such skip.
    """

    @configurable
    def __init__(
        self,
        name: str,
        dim: int = 512,
        layers: Sequence[int] = (),
        conv: Backbone | None = None,
        in_channels: int = 3,
    ) -> None:
        """Create the timm model, whose head is CLIP's projection.

        Args:
            name: of a CLIP image encoder in timm, such as vit_base_patch16_clip_224.
            dim: length of an embedding of CLIP.
            layers: up to two blocks for skips.
            conv: provides "res2" of the same images.
            in_channels: of the images.

        Raises:
            InputError: timm has no such vision transformer, or it has no such blocks.
        """
        super().__init__(name, in_channels, dim)
        last = len(self.body.blocks) - 1
        self.layers = tuple(layers)
        if sorted(set(self.layers)) != list(self.layers) or not set(self.layers) <= set(range(last)):
            raise InputError(
                f"MODEL.MASKCLIP.LAYERS: {self.layers}, but the blocks before the last one of {name} are 0 to "
                f"{last - 1}; name some of these, in their order"
            )
        self.conv = conv
        for key, parameter in self.body.named_parameters():
            parameter.requires_grad_(".attn." in key or key == "pos_embed")
        own = FEATURES[len(FEATURES) - 1 - len(self.layers) :]
        self._out_features = list(own)
        self._out_feature_strides = dict.fromkeys(own, self.patch)
        self._out_feature_channels = {**dict.fromkeys(own, self.body.embed_dim), FEATURES[-1]: dim}
        if conv is not None:
            shape = conv.output_shape()[FEATURES[0]]
            self._out_features.insert(0, FEATURES[0])
            self._out_feature_strides[FEATURES[0]] = shape.stride
            self._out_feature_channels[FEATURES[0]] = shape.channels

    @classmethod
    def from_config(cls, cfg: Any, input_shape: ShapeSpec) -> dict[str, Any]:
        """The arguments of `__init__` by MODEL.TIMM.NAME, MODEL.MASKCLIP and, for its ResNet, MODEL.RESNETS."""
        keys = cfg.MODEL.MASKCLIP
        conv = None
        if len(keys.LAYERS) == 1:
            stage = cfg.clone()
            stage.defrost()
            stage.MODEL.RESNETS.OUT_FEATURES = [FEATURES[0]]  # Detectron2 builds no further stages then
            conv = build_unified_resnet_backbone(stage, input_shape)
        return {
            "name": cfg.MODEL.TIMM.NAME,
            "dim": keys.DIM,
            "layers": keys.LAYERS,
            "conv": conv,
            "in_channels": input_shape.channels,
        }

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """The maps, by name, of normalized images (B, C, H, W)."""
        body: Any = self.body
        image = self.fit(image)
        grid = [side // self.patch for side in image.shape[-2:]]
        last = len(body.blocks) - 1
        tokens, taken = body.norm_pre(body._pos_embed(body.patch_embed(image))), []
        for number, block in enumerate(body.blocks):
            if number in (*self.layers, last):
                taken.append(_value_path(block, tokens))
            if number < last:  # what attention makes in the last one is not used
                tokens = block(tokens)
        taken[-1] = F.normalize(body.head(body.norm(taken[-1])), dim=-1)
        maps = [values[:, body.num_prefix_tokens :].transpose(1, 2).unflatten(2, grid) for values in taken]
        if self.conv is not None:
            maps.insert(0, self.conv(image)[FEATURES[0]])
        return dict(zip(self._out_features, maps, strict=True))


def _value_path(block: Any, tokens: Tensor) -> Tensor:
    """What a block of timm would make of tokens (B, N, D) if each one attended to nothing but itself."""
    attention, channels = block.attn, tokens.shape[-1]
    weight, bias = attention.qkv.weight[-channels:], attention.qkv.bias[-channels:]
    tokens = tokens + attention.proj(F.linear(block.norm1(tokens), weight, bias))
    return tokens + block.mlp(block.norm2(tokens))


@BACKBONE_REGISTRY.register()
def build_maskclip_backbone(cfg: Any, input_shape: ShapeSpec) -> MaskCLIPBackbone:
    """Build the CLIP image encoder MODEL.TIMM.NAME; see `MaskCLIPBackbone`."""
    return MaskCLIPBackbone(cfg, input_shape)
