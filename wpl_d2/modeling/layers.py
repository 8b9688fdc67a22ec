"""Convolutions and normalization as the segmentation heads have them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, NaiveSyncBatchNorm, get_norm
from detectron2.utils import comm
from fvcore.nn import weight_init
from torch import Tensor, nn


def resolve_norm(norm: str, device: str) -> str:
    """Resolve "auto" for the current number of processes; other names stay as they are.

    Plain BN would give every rank its own running statistics, and PyTorch's SyncBN runs on GPUs alone.

    Args:
        norm: as MODEL.RESNETS.NORM.
        device: where the model will be, as MODEL.DEVICE.

    Returns:
        a name; for "auto" BN on one process, else SyncBN on GPUs and naiveSyncBN on the CPU.
    """
    if norm != "auto":
        return norm
    if comm.get_world_size() == 1:
        return "BN"
    return "SyncBN" if torch.device(device).type == "cuda" else "naiveSyncBN"


def normalize_in_float32(model: nn.Module) -> None:
    """Make Detectron2's `NaiveSyncBatchNorm` compute in float32 under mixed precision, in place.

    Its variance is E[x^2] - E[x]^2, which in bfloat16 can be anything, even negative.
    """
    for module in model.modules():
        if isinstance(module, NaiveSyncBatchNorm):
            module.register_forward_pre_hook(_to_float32)


def _to_float32(module: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
    return inputs[0].float()


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
