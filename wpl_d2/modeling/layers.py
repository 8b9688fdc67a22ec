"""Convolutions and normalization of the segmentation heads."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, NaiveSyncBatchNorm, get_norm
from detectron2.utils import comm
from fvcore.nn import weight_init
from torch import Tensor, nn


def resolve_norm(norm: str, device: str) -> str:
    """Resolve "auto": BN for one process, otherwise SyncBN on GPUs and naiveSyncBN on CPUs.

    With plain BN every rank would have its own running statistics, and PyTorch's SyncBN runs on GPUs only.

    Args:
        norm: as MODEL.RESNETS.NORM; all but "auto" are returned unchanged.
        device: MODEL.DEVICE.
    """
    if norm != "auto":
        return norm
    if comm.get_world_size() == 1:
        return "BN"
    return "SyncBN" if torch.device(device).type == "cuda" else "naiveSyncBN"


def normalize_in_float32(model: nn.Module) -> None:
    """Make Detectron2's `NaiveSyncBatchNorm` layers compute in float32 under mixed precision, in place.

    They compute the variance as E[x^2] - E[x]^2, which in bfloat16 may even be negative.
    """
    for module in model.modules():
        if isinstance(module, NaiveSyncBatchNorm):
            module.register_forward_pre_hook(_to_float32)


def stop_counting_batches(model: nn.Module) -> None:
    """Make BN layers leave `num_batches_tracked` as it is, in place.

    PyTorch reads it only for averages without a momentum. Counting is an operation of each layer in each forward: of
    UniMatch's step with ResNet-101 it was one in ten.
    """
    for module in model.modules():
        # No SyncBatchNorm, which insists on its counter.
        if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
            # Hides the buffer from `forward`; states have it as before.
            vars(module)["num_batches_tracked"] = None


def _to_float32(module: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
    return inputs[0].float()


def conv_norm_relu(in_channels: int, channels: int, kernel_size: int, norm: str) -> Conv2d:
    """Build a size-preserving convolution with norm (or else a bias) and ReLU, initialized as Detectron2's DeepLabv3+.

    Args:
        in_channels: of the input.
        channels: of the output.
        kernel_size: odd.
        norm: as for Detectron2's `get_norm`.
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
    """Add channel dropout after a convolution's ReLU, in place, without renaming its weights."""
    conv.activation = nn.Sequential(nn.ReLU(), nn.Dropout2d(probability))


def add_biases(module: nn.Module) -> None:
    """Add zero biases to all convolutions of `module` that have none."""
    for conv in _convs(module):
        if conv.bias is None:
            conv.bias = nn.Parameter(conv.weight.new_zeros(conv.out_channels))


def reset_convs(module: nn.Module) -> None:
    """Reinitialize all convolutions of `module` by PyTorch's default."""
    for conv in _convs(module):
        conv.reset_parameters()


def _convs(module: nn.Module) -> list[nn.Conv2d]:
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]
