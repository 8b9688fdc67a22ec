"""Random choices on the device without a host sync, from uniform samples of torch's global CPU generator."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(*shape: int, device: torch.device) -> Tensor:
    """Uniform samples in [0, 1), float32, the same on every device."""
    return torch.rand(shape).to(device, non_blocking=True)


def random_index(counts: Tensor, samples: Tensor) -> Tensor:
    """Random whole numbers from 0 to below a count.

    Args:
        counts: int64.
        samples: float, uniform in [0, 1), of a shape that broadcasts with that of the counts.

    Returns:
        int64, 0 where the count is 0.
    """
    # In double: the product of a float and a large count could be rounded up to the count.
    return (samples.double() * counts).long()


def nth_true(mask: Tensor, order: Tensor) -> Tensor:
    """The column of the n-th True of each row.

    Args:
        mask: (N, M) bool.
        order: (N, K) int64, n from 0 on.

    Returns:
        (N, K) int64; M - 1 where the row has n True entries or fewer.
    """
    return torch.searchsorted(mask.cumsum(dim=1), order + 1).clamp_(max=mask.shape[1] - 1)
