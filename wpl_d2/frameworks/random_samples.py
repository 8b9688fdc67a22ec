"""Random choices on the device that no host waits for, from torch's global generator of the CPU."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(*shape: int, device: torch.device) -> Tensor:
    """Numbers in [0, 1), float32: the same on every device."""
    return torch.rand(shape).to(device, non_blocking=True)


def choose_classes(logits: Tensor, shares: Tensor) -> Tensor:
    """Classes with the probabilities softmax(logits), with replacement.

    Args:
        logits: (C,) float; -inf for a class that is never chosen.
        shares: (N,) float, uniform in [0, 1).

    Returns:
        (N,) int64 class ids.
    """
    edges = logits.softmax(dim=0).cumsum(dim=0)
    return torch.searchsorted(edges, shares * edges[-1], right=True).clamp_(max=len(logits) - 1)


def choose_true(mask: Tensor, shares: Tensor) -> Tensor:
    """One of the places where a mask is True, all equally likely.

    Args:
        mask: (N, M) bool.
        shares: (N,) float, uniform in [0, 1).

    Returns:
        (N,) int64, a place in each row; M - 1 where the row has none.
    """
    return nth_true(mask, share_of(mask.sum(dim=1), shares).unsqueeze(1)).squeeze(1)


def share_of(counts: Tensor, shares: Tensor) -> Tensor:
    """Shares in [0, 1) of counts as whole numbers below them: shapes as they broadcast, int64, 0 of 0."""
    # In double: a float share of a large count could round up to the count itself.
    return (shares.double() * counts).long()


def nth_true(mask: Tensor, order: Tensor) -> Tensor:
    """Where the n-th True of each row is.

    Args:
        mask: (N, M) bool.
        order: (N, K) int64, n counted from 0, in each row on its own.

    Returns:
        (N, K) int64; M - 1 where the row has fewer.
    """
    return torch.searchsorted(mask.cumsum(dim=1), order + 1).clamp_(max=mask.shape[1] - 1)
