"""Which normalization layer a config value stands for."""

from __future__ import annotations

import torch
from detectron2.utils import comm

from ..errors import InputError, nearest

NORMS = ("BN", "SyncBN", "naiveSyncBN", "FrozenBN", "GN", "")
"""The names of Detectron2's `get_norm` that this package uses; empty: no normalization."""


def resolve_norm(norm: str, device: str) -> str:
    """Resolve "auto" for the current number of processes; other known names stay as they are.

    Plain BN would give every rank its own running statistics, and PyTorch's SyncBN runs on GPUs alone.

    Args:
        norm: "auto" or one of `NORMS`.
        device: where the model will be, as MODEL.DEVICE.

    Returns:
        One of `NORMS`; for "auto" BN on one process, else SyncBN on GPUs and naiveSyncBN on the CPU.

    Raises:
        InputError: an unknown name.
    """
    if norm == "auto":
        if comm.get_world_size() == 1:
            return "BN"
        return "SyncBN" if torch.device(device).type == "cuda" else "naiveSyncBN"
    if norm not in NORMS:
        raise InputError(f"MODEL.*.NORM: no normalization {norm!r}; {nearest(norm, ('auto', *NORMS[:-1]))}")
    return norm
