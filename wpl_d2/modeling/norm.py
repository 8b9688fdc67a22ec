"""Which normalization layer a config value stands for."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.utils import comm
from torch import Tensor, nn

from ..errors import check_name

NORMS = ("auto", "BN", "SyncBN", "naiveSyncBN", "FrozenBN", "GN", "")
"""Those names of Detectron2's `get_norm` that this package uses, and "auto"; empty: no normalization."""


def resolve_norm(norm: str, device: str) -> str:
    """Resolve "auto" for the current number of processes; other known names stay as they are.

    Plain BN would give every rank its own running statistics, and PyTorch's SyncBN runs on GPUs alone.

    Args:
        norm: one of `NORMS`.
        device: where the model will be, as MODEL.DEVICE.

    Returns:
        a name; for "auto" BN on one process, else SyncBN on GPUs and naiveSyncBN on the CPU.

    Raises:
        InputError: an unknown name.
    """
    if norm == "auto":
        if comm.get_world_size() == 1:
            return "BN"
        return "SyncBN" if torch.device(device).type == "cuda" else "naiveSyncBN"
    return check_name("MODEL.*.NORM", norm, NORMS)


def normalize_in_float32(model: nn.Module) -> None:
    """Make Detectron2's `NaiveSyncBatchNorm` compute in float32 under mixed precision, in place.

    Its variance is E[x^2] - E[x]^2, which in bfloat16 can be anything, even negative.
    """
    for module in model.modules():
        if isinstance(module, NaiveSyncBatchNorm):
            module.register_forward_pre_hook(_to_float32)


def _to_float32(module: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
    return inputs[0].float()
