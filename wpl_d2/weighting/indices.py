"""Indices that every step asks for: made once, since on a GPU a step takes as long as its operations are many."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


@lru_cache(64)
@torch.inference_mode(False)  # training uses what an evaluation may have computed first
def arange(start: int, end: int, step: int = 1, *, device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """`torch.arange`, kept; not to be changed in place."""
    return torch.arange(start, end, step, device=device, dtype=dtype)


@lru_cache(64)
@torch.inference_mode(False)
def nearest_index(source: int, target: int, device: torch.device) -> Tensor:
    """The nearest of `source` positions for each of `target` ones, as torch's `nearest-exact` defines it.

    Kept; not to be changed in place.

    Returns:
        (target,) int64.
    """
    positions = torch.arange(source, dtype=torch.float32, device=device).view(1, 1, -1)
    return F.interpolate(positions, size=target, mode="nearest-exact").flatten().long()


@lru_cache(64)
@torch.inference_mode(False)
def nearest_cells(
    images: int, source: tuple[int, int], target: tuple[int, int], step: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Where the nearest cell of each pixel begins in maps (images, *source, step) whose axes are joined.

    Kept; not to be changed in place.

    Returns:
        (images, H, 1) and (W,) int64, which are to be added; (H, W) is `target`.
    """
    rows = torch.arange(images, device=device).view(-1, 1, 1) * source[0]
    rows = rows + nearest_index(source[0], target[0], device).view(-1, 1)
    return rows * (source[1] * step), nearest_index(source[1], target[1], device) * step


def class_edges(keys: Tensor, classes: int, step: int = 1) -> Tensor:
    """Where each class begins, and the last one ends, in ascending keys (N,) int64: (classes + 1,) int64.

    Args:
        keys: class c has those from c * step to below (c + 1) * step.
        classes: number of classes.
        step: see `keys`.
    """
    return torch.searchsorted(keys, arange(0, (classes + 1) * step, step, device=keys.device))
