"""Losses of single pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..structures import IGNORE


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each pixel, in float32 whatever the dtype of the logits.

    Args:
        logits: (B, C, H, W) float.
        target: (B, H, W) int64 class ids, `IGNORE` where there is none.

    Returns:
        (B, H, W) float32, 0 where the target is `IGNORE`.
    """
    return F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="none")
