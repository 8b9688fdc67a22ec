"""A second output of the decoder, parallel to the classifier: what contrastive losses compare pixels by."""

from __future__ import annotations

import torch.nn.functional as F
from detectron2.layers import Conv2d, DepthwiseSeparableConv2d
from torch import Tensor, nn

from ..layers import conv_norm_relu


class RepresentationFork(nn.Module):
    """Stands in the place of a decoder's last fuse convolutions, and computes the representation from their input.

    So it reads what they read (U2PL, section 3.2) without a second run of ASPP: Detectron2's decoder hands out whatever
    its last fuse convolution returns.
    """

    def __init__(self, fuse: nn.Module, representation: nn.Module) -> None:
        """Take the fuse convolutions' place.

        Args:
            fuse: what was there.
            representation: on the same input; computed in training alone.
        """
        super().__init__()
        self.fuse = fuse
        self.representation = representation

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of features (B, D, h, w): what `fuse` makes of them, and their representation; None in evaluation."""
        return self.fuse(features), self.representation(features) if self.training else None


def representation_head(
    in_channels: int, channels: int, dim: int, norm: str, dropout: float = 0.0, separable: bool = False
) -> nn.Sequential:
    """Two 3x3 convolutions, each with normalization, ReLU and channel dropout, and a 1x1 (U2PL).

    Args:
        in_channels: of its input.
        channels: width of the 3x3 convolutions.
        dim: length of a pixel's representation.
        norm: as in Detectron2's `get_norm`.
        dropout: probability of a channel to be dropped in training.
        separable: whether the 3x3 convolutions are depthwise separable.
    """
    layers: list[nn.Module] = []
    for width in (in_channels, channels):
        layers.append(_separable(width, channels, norm) if separable else conv_norm_relu(width, channels, 3, norm))
        if dropout:
            layers.append(nn.Dropout2d(dropout))
    return nn.Sequential(*layers, Conv2d(channels, dim, kernel_size=1))


def _separable(in_channels: int, channels: int, norm: str) -> nn.Module:
    kinds = {"norm1": norm, "activation1": F.relu, "norm2": norm, "activation2": F.relu}
    return DepthwiseSeparableConv2d(in_channels, channels, kernel_size=3, padding=1, **kinds)
