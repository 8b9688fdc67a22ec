"""SegFormer's decoder of 1x1 convolutions alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ...structures import SemSegOutput
from ..layers import resolve_norm


@SEM_SEG_HEADS_REGISTRY.register()
class SegFormerHead(nn.Module):
    """The all-MLP decoder of SegFormer (Xie et al., NeurIPS 2021, section 3.2), for any backbone's feature maps.

    Each map is brought to one width and to the size of the first; a convolution with norm and ReLU fuses all. The
    embedding is its output, (B, CONVS_DIM, h, w), at the stride of the first map.

    Attributes:
        predictor: 1x1 convolution from the embedding to the logits.
        merged_channels: of `merge`.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        width: int,
        norm: str,
        dropout: float,
        align_corners: bool,
    ) -> None:
        """Build decoder and classifier.

        Args:
            input_shape: of the feature maps, that of the smallest stride first.
            num_classes: of the segmentation.
            width: channels of the decoder.
            norm: as for Detectron2's `get_norm`.
            dropout: probability of dropping a channel before the classifier in training.
            align_corners: of every bilinear resize.
        """
        super().__init__()
        self.in_features = list(input_shape)
        self.projects = nn.ModuleList(nn.Conv2d(shape.channels, width, 1) for shape in input_shape.values())
        self.merged_channels = width * len(input_shape)
        self.fuse = Conv2d(self.merged_channels, width, 1, bias=not norm, norm=get_norm(norm, width), activation=F.relu)
        self.dropout = nn.Dropout2d(dropout)
        self.predictor = nn.Conv2d(width, num_classes, 1)
        self.align_corners = align_corners
        self.has_representation = False

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments of `__init__` by `cfg.MODEL.SEM_SEG_HEAD`."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": input_shape,
            "num_classes": head.NUM_CLASSES,
            "width": head.CONVS_DIM,
            "norm": resolve_norm(head.NORM, cfg.MODEL.DEVICE),
            "dropout": head.DECODER_DROPOUT,
            "align_corners": head.ALIGN_CORNERS,
        }

    def forward(self, features: dict[str, Tensor], size: Sequence[int]) -> SemSegOutput:
        """Decode feature maps, by name, to logits (B, num_classes, *size) and the embedding."""
        return self.classify(self.merge(features), size)

    def merge(self, features: dict[str, Tensor]) -> Tensor:
        """What the fusing convolution reads, (B, D, h, w), the last map in front: the first half of `forward`."""
        first, *others = (
            project(features[name]) for name, project in zip(self.in_features, self.projects, strict=True)
        )
        return torch.cat([*(self._resize(maps, first.shape[-2:]) for maps in reversed(others)), first], dim=1)

    def classify(self, merged: Tensor, size: Sequence[int]) -> SemSegOutput:
        """The output for a map of `merge`: the second half of `forward`."""
        embedding = self.fuse(merged)
        return SemSegOutput(self._resize(self.predictor(self.dropout(embedding)), size), embedding)

    def _resize(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=self.align_corners)
