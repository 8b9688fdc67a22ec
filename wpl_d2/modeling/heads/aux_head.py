"""An auxiliary classifier on an earlier feature map, for a shorter path of gradients into the backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from torch import Tensor, nn

from ...utils.errors import InputError
from ..layers import resolve_norm


class AuxHead(nn.Module):
    """PSPNet's auxiliary branch: a 3x3 convolution, channel dropout and a classifier.

    As in U2PL and AEL the convolution has a bias in spite of the norm that follows, and PyTorch's initial weights.

    Attributes:
        loss_weight: factor of its loss.
    """

    @configurable
    def __init__(
        self,
        *,
        in_feature: str,
        in_channels: int,
        channels: int,
        num_classes: int,
        norm: str,
        dropout: float,
        align_corners: bool,
        loss_weight: float,
    ) -> None:
        """Build the layers.

        Args:
            in_feature: name of the feature map.
            in_channels: its channels.
            channels: of the convolution's output.
            num_classes: of the segmentation.
            norm: of the convolution, as for Detectron2's `get_norm`.
            dropout: probability of dropping a channel in training.
            align_corners: for the bilinear resize of the logits.
            loss_weight: factor of its loss.
        """
        super().__init__()
        self.in_feature = in_feature
        self.align_corners = align_corners
        self.loss_weight = loss_weight
        conv = Conv2d(in_channels, channels, 3, padding=1, norm=get_norm(norm, channels), activation=F.relu)
        drop = nn.Dropout2d(dropout) if dropout else nn.Identity()
        self.layers = nn.Sequential(conv, drop, Conv2d(channels, num_classes, kernel_size=1))

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read MODEL.AUX_HEAD, and classes, norm and resize from MODEL.SEM_SEG_HEAD.

        Raises:
            InputError: the backbone lacks the feature map.
        """
        aux, head = cfg.MODEL.AUX_HEAD, cfg.MODEL.SEM_SEG_HEAD
        if aux.IN_FEATURE not in input_shape:
            raise InputError(
                f"MODEL.AUX_HEAD.IN_FEATURE: the backbone has no {aux.IN_FEATURE}; set it to one of "
                f"{', '.join(input_shape)}"
            )
        return {
            "in_feature": aux.IN_FEATURE,
            "in_channels": input_shape[aux.IN_FEATURE].channels,
            "channels": aux.CHANNELS,
            "num_classes": head.NUM_CLASSES,
            "norm": resolve_norm(head.NORM, cfg.MODEL.DEVICE),
            "dropout": aux.DROPOUT,
            "align_corners": head.ALIGN_CORNERS,
            "loss_weight": aux.LOSS_WEIGHT,
        }

    def forward(self, features: dict[str, Tensor], size: Sequence[int], count: int | None = None) -> Tensor:
        """Compute logits (count, num_classes, *size).

        Args:
            features: the backbone's; all images enter the normalization's statistics.
            size: (H, W) of the logits.
            count: how many of the first images get logits; None for all.
        """
        logits = self.layers(features[self.in_feature])[:count]
        return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=self.align_corners)
