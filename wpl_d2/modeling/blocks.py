"""Convolutions as the segmentation heads have them."""

from __future__ import annotations

import torch.nn.functional as F
from detectron2.layers import Conv2d, get_norm
from fvcore.nn import weight_init
from torch import nn


def conv_norm_relu(in_channels: int, channels: int, kernel_size: int, norm: str) -> Conv2d:
    """A convolution that keeps the size, with normalization (and a bias if there is none) and ReLU.

    Its initial weights are those of Detectron2's DeepLabv3+.

    Args:
        in_channels: of its input.
        channels: of its output.
        kernel_size: odd.
        norm: as in Detectron2's `get_norm`.
    """
    conv = Conv2d(
        in_channels,
        channels,
        kernel_size,
        padding=kernel_size // 2,
        bias=not norm,
        norm=get_norm(norm, channels),
        activation=F.relu,
    )
    weight_init.c2_xavier_fill(conv)
    return conv


def drop_channels(conv: Conv2d, probability: float) -> None:
    """Drop channels of a convolution's output, behind its ReLU, in training; the names of its weights stay."""
    conv.activation = nn.Sequential(nn.ReLU(), nn.Dropout2d(probability))


def add_biases(module: nn.Module) -> None:
    """Give all convolutions of `module` a bias, which begins with 0."""
    for conv in _convs(module):
        if conv.bias is None:
            conv.bias = nn.Parameter(conv.weight.new_zeros(conv.out_channels))


def reset_convs(module: nn.Module) -> None:
    """Draw the weights and biases of all convolutions of `module` as PyTorch does."""
    for conv in _convs(module):
        conv.reset_parameters()


def _convs(module: nn.Module) -> list[nn.Conv2d]:
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]
