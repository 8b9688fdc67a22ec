"""DPT's decoder for the tokens of a vision transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ...structures import SemSegOutput
from ...utils.errors import InputError


@SEM_SEG_HEADS_REGISTRY.register()
class DPTHead(nn.Module):
    """The dense prediction transformer's decoder (Ranftl et al., ICCV 2021) without norms, as UniMatch V2 has it.

    Four maps of one stride are brought to 4, 2, 1 and 1/2 times their size, and fused from the smallest to the largest.
    The embedding is what the last 1x1 convolution reads: (B, CONVS_DIM, h, w), 8 times the size of the tokens' map.

    Attributes:
        predictor: 1x1 convolution from the embedding to the logits.
        merged_channels: of `merge`.
    """

    @configurable
    def __init__(
        self, input_shape: dict[str, ShapeSpec], *, num_classes: int, width: int, channels: Sequence[int]
    ) -> None:
        """Build decoder and classifier.

        Args:
            input_shape: of four feature maps, the earliest first.
            num_classes: of the segmentation.
            width: channels of the decoder.
            channels: of each map before it is brought to that width.

        Raises:
            InputError: the backbone has no four maps of one stride.
        """
        super().__init__()
        self.in_features = list(input_shape)
        if len(input_shape) != 4 or len({shape.stride for shape in input_shape.values()}) > 1:
            raise InputError(
                "MODEL.SEM_SEG_HEAD.NAME: DPTHead reads four maps of one stride, a vision transformer's; set "
                "MODEL.BACKBONE.NAME build_vit_backbone, or another head"
            )
        inputs = [shape.channels for shape in input_shape.values()]
        self.projects = nn.ModuleList(nn.Conv2d(*pair, 1) for pair in zip(inputs, channels, strict=True))
        first, second, _, last = channels
        self.resizes = nn.ModuleList(
            (
                nn.ConvTranspose2d(first, first, 4, stride=4),
                nn.ConvTranspose2d(second, second, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(last, last, 3, stride=2, padding=1),
            )
        )
        self.reduces = nn.ModuleList(nn.Conv2d(own, width, 3, padding=1, bias=False) for own in channels)
        # The smallest map has nothing to be fused with.
        self.fusions = nn.ModuleList(_Fusion(width, joins=number < 3) for number in range(4))
        self.fuse = nn.Conv2d(width, width, 3, padding=1)
        self.predictor = nn.Conv2d(width, num_classes, 1)
        self.merged_channels = width
        self.has_representation = False

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments of `__init__` by `cfg.MODEL.SEM_SEG_HEAD`."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": input_shape,
            "num_classes": head.NUM_CLASSES,
            "width": head.CONVS_DIM,
            "channels": head.DPT_CHANNELS,
        }

    def forward(self, features: dict[str, Tensor], size: Sequence[int]) -> SemSegOutput:
        """Decode four maps, by name, to logits (B, num_classes, *size) and the embedding."""
        return self.classify(self.merge(features), size)

    def merge(self, features: dict[str, Tensor]) -> Tensor:
        """What the last 3x3 convolution reads, (B, CONVS_DIM, h, w): the first half of `forward`."""
        parts = zip(self.in_features, self.projects, self.resizes, self.reduces, strict=True)
        maps = [reduce(resize(project(features[name]))) for name, project, resize, reduce in parts]
        decoded = None
        for number in (3, 2, 1, 0):
            larger = maps[number - 1].shape[-2:] if number else [2 * side for side in maps[0].shape[-2:]]
            decoded = self.fusions[number](maps[number], decoded, larger)
        assert decoded is not None  # of four maps
        return decoded

    def classify(self, merged: Tensor, size: Sequence[int]) -> SemSegOutput:
        """The output for a map of `merge`: the second half of `forward`."""
        embedding = F.relu(self.fuse(merged))
        logits = F.interpolate(self.predictor(embedding), tuple(size), mode="bilinear", align_corners=True)
        return SemSegOutput(logits, embedding)


class _Fusion(nn.Module):
    """Adds a map to what was decoded of the smaller ones, and enlarges the sum."""

    def __init__(self, width: int, joins: bool) -> None:
        super().__init__()
        self.lateral = _Residual(width) if joins else nn.Identity()
        self.sum = _Residual(width)
        self.project = nn.Conv2d(width, width, 1)

    def forward(self, own: Tensor, smaller: Tensor | None, size: Sequence[int]) -> Tensor:
        decoded = self.sum(self.lateral(own) if smaller is None else smaller + self.lateral(own))
        # A 1x1 convolution commutes with the interpolation, and has less to do before it.
        return F.interpolate(self.project(decoded), tuple(size), mode="bilinear", align_corners=True)


class _Residual(nn.Sequential):
    """Two 3x3 convolutions, each after a ReLU, beside a shortcut."""

    def __init__(self, width: int) -> None:
        convs = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        super().__init__(*(layer for conv in convs for layer in (nn.ReLU(), conv)))

    def forward(self, input: Tensor) -> Tensor:
        return input + super().forward(input)
