"""ResNet-50 and -101 from Detectron2's blocks, with an output stride and one dilation per block of res5."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock, ResNet
from detectron2.projects.deeplab.resnet import DeepLabStem
from torch import Tensor

from ..layers import resolve_norm


class CeilDeepLabStem(DeepLabStem):
    """Detectron2's DeepLab stem with pooling that rounds up: 800 pixels become 201, as 801 do (AugSeg, U2PL, AEL)."""

    def forward(self, x: Tensor) -> Tensor:
        """Feature map (B, 128, h, w) at stride 4 of an image (B, 3, H, W)."""
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu_(conv(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1, ceil_mode=True)


_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# With the stem's output channels.
_STEMS = {"basic": (BasicStem, 64), "deeplab": (DeepLabStem, 128), "deeplab_ceil": (CeilDeepLabStem, 128)}
# By output stride, the strides of the first blocks of res2 to res5.
_STRIDES = {8: (1, 2, 1, 1), 16: (1, 2, 2, 1), 32: (1, 2, 2, 2)}


@BACKBONE_REGISTRY.register()
def build_unified_resnet_backbone(cfg: Any, input_shape: ShapeSpec) -> ResNet:
    """Build a ResNet for a DeepLabv3+ head and a DC5 detector, or for an FPN.

    At output stride 16 or 8 the blocks of res5 have no stride but the dilations RES5_BLOCK_DILATIONS: at 16 UniMatch's
    are 1, 2, 2 and AugSeg's 2, 4, 8; at 8 U2PL's and AEL's are 4, 8, 16. At 8 all blocks of res4 but the first have
    dilation 2. An FPN needs output stride 32 and dilations 1, 1, 1.

    Args:
        cfg: MODEL.RESNETS.{DEPTH, STEM_TYPE, STRIDE_IN_1X1, NORM, NUM_GROUPS, WIDTH_PER_GROUP, RES2_OUT_CHANNELS,
            RES5_BLOCK_DILATIONS, OUT_FEATURES}, MODEL.BACKBONE.{OUTPUT_STRIDE, FREEZE_AT} and MODEL.DEVICE are read.
        input_shape: of the image.

    Returns:
        a backbone with the feature maps OUT_FEATURES, out of "res2" (stride 4) to "res5" (the output stride).
    """
    resnets, output_stride = cfg.MODEL.RESNETS, cfg.MODEL.BACKBONE.OUTPUT_STRIDE
    norm = resolve_norm(resnets.NORM, cfg.MODEL.DEVICE)
    stem_class, channels = _STEMS[resnets.STEM_TYPE]
    stem = stem_class(in_channels=input_shape.channels, out_channels=channels, norm=norm)
    blocks = _BLOCKS[resnets.DEPTH]
    dilations = [
        (1,) * blocks[0],
        (1,) * blocks[1],
        # The first block, which would reduce the resolution, keeps the dilation of the stage before.
        (1,) + (2 if output_stride == 8 else 1,) * (blocks[2] - 1),
        tuple(resnets.RES5_BLOCK_DILATIONS),
    ]
    stages = []
    for level, (count, stride) in enumerate(zip(blocks, _STRIDES[output_stride], strict=True)):
        out_channels = resnets.RES2_OUT_CHANNELS * 2**level
        stages.append(
            ResNet.make_stage(
                BottleneckBlock,
                count,
                in_channels=channels,
                out_channels=out_channels,
                bottleneck_channels=resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP * 2**level,
                num_groups=resnets.NUM_GROUPS,
                stride_per_block=[stride] + [1] * (count - 1),
                dilation_per_block=dilations[level],
                stride_in_1x1=resnets.STRIDE_IN_1X1,
                norm=norm,
            )
        )
        channels = out_channels
    return ResNet(stem, stages, out_features=resnets.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)
