"""Aligned Xception with the feature maps and the dilation that published DeepLabv3+ models take from it."""

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
    """Xception-41, 65 or 71 as UniMatch has it on COCO; timm's layers, and so timm's weights.

    `TimmBackbone` would give the same model with three differences: its "res2" to "res4" have passed a ReLU, here they
    are what a strided block computes before its last convolution and that one's ReLU; at output strides 16 and 8 its
    exit flow is dilated twice as much as the blocks before, here as much: at 16 not at all; and its blocks of the
    middle flow add what they compute to their input, here, with `rectified_shortcuts`, to that input behind a ReLU.

    Attributes:
        body: timm's `XceptionAligned` without its classifier.
        rectified_shortcuts: see above.
    """

    @configurable
    def __init__(self, name: str, *, rectified_shortcuts: bool = False, **backbone: Any) -> None:
        """Create the timm model.

        Args:
            name: xception41, xception65 or xception71, perhaps with timm's tag of its weights.
            rectified_shortcuts: whether the shortcuts of the middle flow pass a ReLU. They do in UniMatch's code, whose
                blocks overwrite their input by its ReLU; they do not in timm, and did not when timm's weights were
                trained.
            backbone: the other arguments of `TimmBackbone`.
        """
        super().__init__(name, **backbone)
        self.rectified_shortcuts = rectified_shortcuts

    @classmethod
    def from_config(cls, cfg: Any, input_shape: ShapeSpec) -> dict[str, Any]:
        """As in `TimmBackbone`, and MODEL.XCEPTION."""
        return super().from_config(cfg, input_shape) | {"rectified_shortcuts": cfg.MODEL.XCEPTION.RECTIFIED_SHORTCUTS}

    @staticmethod
    def create_body(name: str, output_stride: int) -> Any:
        """See `TimmBackbone.create_body`.

        Raises:
            InputError: no Xception of these.
        """
        check_name("MODEL.TIMM.NAME", name.partition(".")[0], _NAMES)
        body = create_timm_model(name, output_stride, num_classes=0, global_pool="")
        body.feature_info = FeatureInfo(body.feature_info, OUT_INDICES)
        for index in _tapped(body):
            # It would overwrite the feature map.
            body.blocks[index].stack[-2].inplace = False
        rate = max(1, 16 // output_stride)
        for separable in body.blocks[-1].stack:
            separable.conv_dw.dilation = separable.conv_dw.padding = (rate, rate)
        return body

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Feature maps by name of a normalized image (B, 3, H, W)."""
        body: Any = self.body
        tapped = _tapped(body)
        x, features = body.stem(image), []
        for index, block in enumerate(body.blocks):
            if index in tapped:
                x, feature = _strided_block(block, x)
                features.append(feature)
            elif self.rectified_shortcuts and block.shortcut is None and not block.no_skip:
                x = block(F.relu(x))  # its first layer is a ReLU, and so the same
            else:
                x = block(x)
        return dict(zip(FEATURES, [*features, x], strict=True))


@BACKBONE_REGISTRY.register()
def build_xception_backbone(cfg: Any, input_shape: ShapeSpec) -> XceptionBackbone:
    """Build the Xception MODEL.TIMM.NAME; see `TimmBackbone.from_config`."""
    return XceptionBackbone(cfg, input_shape)


def _tapped(body: Any) -> list[int]:
    """Indices of the blocks whose last convolution has a stride, or had one before dilation replaced it."""
    return [int(name.split(".")[1]) for name in body.feature_info.module_name()[:-1]]


def _strided_block(block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute a block: its output, and its feature map before the last ReLU and convolution."""
    *first, relu, strided = block.stack
    feature = x
    for layer in first:
        feature = layer(feature)
    return strided(relu(feature)) + block.shortcut(x), feature
