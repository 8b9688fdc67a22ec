"""Counts of right and wrong things by class, made on the device."""

from __future__ import annotations

import torch
from torch import Tensor


def count_by_class(
    labels: Tensor, right: Tensor, mask: Tensor, num_classes: int, weight: Tensor | None = None
) -> Tensor:
    """How many of what is labeled as each class are wrong and right, or how much weight they have.

    Args:
        labels: int64 class ids, any shape; others than those of the classes only outside of the mask.
        right: bool, same shape.
        mask: bool, same shape; False is not counted.
        num_classes: number of classes, C.
        weight: float, same shape, added up in place of ones.

    Returns:
        (C, 2): wrong and right.
    """
    size = 2 * num_classes
    cell = torch.where(mask, labels * 2 + right, size)
    flat = None if weight is None else weight.flatten()
    return torch.bincount(cell.flatten(), flat, minlength=size + 1)[:size].view(-1, 2)


def percent(part: float, whole: float) -> float:
    """`part` of `whole` in percent; NaN of nothing."""
    return 100 * float(part) / float(whole) if whole else float("nan")
