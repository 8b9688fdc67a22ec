"""Aligned Xception with the feature maps and dilation of published DeepLabv3+ models."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from timm.models import FeatureInfo
from torch import Tensor

from ...utils.errors import check_name
from .timm import FEATURES, OUT_INDICES, TimmBackbone, create_timm_model

_NAMES = ("xception41", "xception65", "xception71")


class XceptionBackbone(TimmBackbone):
    """Xception-41, -65 or -71 as in UniMatch's models for COCO, from timm's layers and with timm's weights.

    It differs from `TimmBackbone` in three points:
    - "res2" to "res4" are taken in a strided block before its last convolution and that convolution's ReLU, not after a
      ReLU.
    - The exit flow has the dilation of the blocks before it, none at output stride 16, instead of twice that.
    - With `rectified_shortcuts` the middle flow's blocks add their input after a ReLU, instead of as it is.

    Attributes:
        body: timm's `XceptionAligned` without classifier.
        rectified_shortcuts: see above.
    """

    @configurable
    def __init__(self, name: str, *, rectified_shortcuts: bool = False, **backbone: Any) -> None:
        """Create the timm model.

        Args:
            name: xception41, xception65 or xception71, optionally with timm's tag of the weights.
            rectified_shortcuts: whether shortcuts of the middle flow pass a ReLU, as in UniMatch's code, whose in-place
                ReLU overwrites a block's input. In timm, and in the training of timm's weights, they do not.
            backbone: the other arguments of `TimmBackbone`.
        """
        super().__init__(name, **backbone)
        self.rectified_shortcuts = rectified_shortcuts

    @classmethod
    def from_config(cls, cfg: Any, input_shape: ShapeSpec) -> dict[str, Any]:
        """Read the keys of `TimmBackbone`, and MODEL.XCEPTION."""
        return super().from_config(cfg, input_shape) | {"rectified_shortcuts": cfg.MODEL.XCEPTION.RECTIFIED_SHORTCUTS}

    @staticmethod
    def create_body(name: str, output_stride: int, in_channels: int) -> Any:
        """See `TimmBackbone.create_body`.

        Raises:
            InputError: the name is not one of these Xceptions.
        """
        check_name("MODEL.TIMM.NAME", name.partition(".")[0], _NAMES)
        body = create_timm_model(name, output_stride, num_classes=0, global_pool="", in_chans=in_channels)
        body.feature_info = FeatureInfo(body.feature_info, OUT_INDICES)
        for index in _tapped(body):
            # In place it would overwrite the feature map.
            body.blocks[index].stack[-2].inplace = False
        rate = max(1, 16 // output_stride)
        for separable in body.blocks[-1].stack:
            separable.conv_dw.dilation = separable.conv_dw.padding = (rate, rate)
        return body

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps, by name, of normalized images (B, C, H, W)."""
        body: Any = self.body
        tapped = _tapped(body)
        x, features = body.stem(image), []
        for index, block in enumerate(body.blocks):
            if index in tapped:
                x, feature = _strided_block(block, x)
                features.append(feature)
            elif self.rectified_shortcuts and block.shortcut is None and not block.no_skip:
                x = block(F.relu(x))  # the block begins with a ReLU: only its shortcut changes
            else:
                x = block(x)
        return dict(zip(FEATURES, [*features, x], strict=True))


@BACKBONE_REGISTRY.register()
def build_xception_backbone(cfg: Any, input_shape: ShapeSpec) -> XceptionBackbone:
    """Build the Xception MODEL.TIMM.NAME; see `TimmBackbone.from_config`."""
    return XceptionBackbone(cfg, input_shape)


def _tapped(body: Any) -> list[int]:
    """Indices of the blocks whose last convolution has a stride, or a dilation in its place."""
    return [int(name.split(".")[1]) for name in body.feature_info.module_name()[:-1]]


def _strided_block(block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute a block's output, and its feature map before the last ReLU and convolution."""
    *first, relu, strided = block.stack
    feature = x
    for layer in first:
        feature = layer(feature)
    return strided(relu(feature)) + block.shortcut(x), feature
