"""Vision transformers of timm as backbones: the patch tokens of four of their layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import timm
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.models import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor

from ...utils.errors import InputError
from .timm import FEATURES, check_timm_name


class TimmViT(Backbone):
    """A vision transformer of timm; subclasses say which of its maps they take.

    Images whose sides the patch does not divide are resized to the nearest sides that it does, as UniMatch V2
    evaluates. Position embeddings are interpolated to any size.

    Attributes:
        body: timm's model.
        name: of the timm model.
        patch: its side in pixels.
    """

    def __init__(self, name: str, in_channels: int, num_outputs: int = 0) -> None:
        """Create the timm model.

        Args:
            name: one of `timm.list_models()`, such as vit_base_patch14_dinov2.
            in_channels: of the images.
            num_outputs: of the linear layer `body.head`; 0: there is none.

        Raises:
            InputError: timm has no such vision transformer.
        """
        super().__init__()
        self.name = name
        self.body = _create(name, in_channels, num_outputs)
        self.patch = self.body.patch_embed.patch_size[0]

    def fit(self, image: Tensor) -> Tensor:
        """Images (B, C, H, W) with sides that the patch divides."""
        height, width = (self.patch * patches_along(side, self.patch) for side in image.shape[-2:])
        if (height, width) == image.shape[-2:]:
            return image
        return F.interpolate(image, (height, width), mode="bilinear", align_corners=True)

    def convert(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights in timm's layout, DINOv2's or OpenAI CLIP's, in that of `body`; position embeddings are resized."""
        return checkpoint_filter_fn(dict(weights), self.body)


class ViTBackbone(TimmViT):
    """Four maps of patch tokens after the last norm, all of the patch's stride, as "res2" (the earliest) to "res5".

    Attributes:
        layers: the blocks whose tokens are taken, from 0.
    """

    @configurable
    def __init__(self, name: str, layers: Sequence[int] = (), frozen: bool = False, in_channels: int = 3) -> None:
        """Create the timm model, without its head.

        Args:
            name: see `TimmViT`.
            layers: four blocks; () takes the last of each quarter.
            frozen: whether it is not trained.
            in_channels: of the images.

        Raises:
            InputError: timm has no such vision transformer, or it has no such blocks.
        """
        super().__init__(name, in_channels)
        depth = len(self.body.blocks)
        self.layers = tuple(layers) or tuple(depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4))
        if sorted(set(self.layers)) != list(self.layers) or self.layers[0] < 0 or self.layers[-1] != depth - 1:
            raise InputError(
                f"MODEL.VIT.LAYERS: {self.layers}, but {name} has the blocks 0 to {depth - 1}; name four of them in "
                f"their order, of which {depth - 1} is the last, or none to take the last of each quarter: ()"
            )
        self.body.requires_grad_(not frozen)
        self._out_features = list(FEATURES)
        self._out_feature_strides = dict.fromkeys(FEATURES, self.patch)
        self._out_feature_channels = dict.fromkeys(FEATURES, self.body.embed_dim)

    @classmethod
    def from_config(cls, cfg: Any, input_shape: ShapeSpec) -> dict[str, Any]:
        """The arguments of `__init__` by MODEL.TIMM.NAME and MODEL.VIT."""
        vit = cfg.MODEL.VIT
        shared = {"name": cfg.MODEL.TIMM.NAME, "in_channels": input_shape.channels}
        return shared | {"layers": vit.LAYERS, "frozen": vit.FROZEN}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """The maps, by name, of normalized images (B, C, H, W)."""
        image = self.fit(image)
        maps: Any = self.body.forward_intermediates(image, list(self.layers), norm=True, intermediates_only=True)
        return dict(zip(FEATURES, maps, strict=True))


@BACKBONE_REGISTRY.register()
def build_vit_backbone(cfg: Any, input_shape: ShapeSpec) -> ViTBackbone:
    """Build the vision transformer MODEL.TIMM.NAME; see `ViTBackbone`."""
    return ViTBackbone(cfg, input_shape)


def patches_along(side: int, patch: int) -> int:
    """The number of patches nearest to a side in pixels, the even one of two, and at least 1.

    It is `max(1, round(side / patch))`, in integers that the tracers of exports follow.
    """
    return at_least_one((2 * side + patch - 1 + side // patch % 2) // (2 * patch))


def at_least_one(count: int) -> int:
    """`max(1, count)` of a count, likewise."""
    return count + 1 // (count + 1)


def _create(name: str, in_channels: int, num_outputs: int) -> VisionTransformer:
    check_timm_name(name)
    body = None
    with suppress(TypeError):  # of other models, which know no such arguments
        sizes: dict[str, Any] = {"num_classes": num_outputs, "in_chans": in_channels, "dynamic_img_size": True}
        body = timm.create_model(name, global_pool="", **sizes)
    if not isinstance(body, VisionTransformer):
        raise InputError(
            f"MODEL.TIMM.NAME: {name} is no plain vision transformer; choose one, such as vit_small_patch14_dinov2, or "
            "MODEL.BACKBONE.NAME build_timm_backbone"
        )
    return body
