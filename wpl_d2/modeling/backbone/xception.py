"""Aligned Xception with the feature maps and the dilation that published DeepLabv3+ models take from it."""

from __future__ import annotations

from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from timm.models import FeatureInfo
from torch import Tensor

from ...errors import check_name
from .timm import FEATURES, OUT_INDICES, TimmBackbone, create_timm_model

_NAMES = ("xception41", "xception65", "xception71")


class XceptionBackbone(TimmBackbone):
    """Xception-41, 65 or 71 as UniMatch has it on COCO; timm's layers, and so timm's weights.

    `TimmBackbone` would give the same model with two differences: its "res2" to "res4" have passed a ReLU, here they
    are what a strided block computes before its last convolution and that one's ReLU; and at output strides 16 and 8
    its exit flow is dilated twice as much as the blocks before, here as much: at 16 not at all.

    Attributes:
        body: timm's `XceptionAligned` without its classifier.
    """

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
