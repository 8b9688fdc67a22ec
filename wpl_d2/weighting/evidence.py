"""What pseudo-labels are weighed and refined by: predictions, boxes and the memory banks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..structures import Detections, PseudoLabels
from .memory_bank import MemoryBank, pooled_prototypes


@dataclass(frozen=True)
class Evidence:
    """The pseudo-labels of B unmixed weak views, and all that can tell how good they are.

    Attributes:
        pseudo: the pseudo-labels.
        logits: (B, C, H, W) float, whose arg max they are.
        embedding: (B, D, h, w) float, of the same views.
        detections: of each image, of any score; None without a detector.
        images: (B, 3, H, W) float, the views, normalized; only for what needs "views".
        segment: computes the same model's logits (B, C, H', W') of images of any size, in evaluation mode; likewise.
    """

    pseudo: PseudoLabels
    logits: Tensor
    embedding: Tensor
    detections: Sequence[Detections] | None = None
    images: Tensor | None = None
    segment: Callable[[Tensor], Tensor] | None = None


class Memory:
    """The current content of one or more memory banks, pooled."""

    def __init__(self, banks: Sequence[MemoryBank]) -> None:
        """Read banks of equal shape; they are pooled on first use."""
        self.banks = banks

    @cached_property
    def _pooled(self) -> tuple[Tensor, Tensor]:
        return pooled_prototypes(self.banks)

    @property
    def prototypes(self) -> Tensor:
        """(C, D) float32, zeros for a class without embeddings."""
        return self._pooled[0]

    @property
    def counts(self) -> Tensor:
        """(C,) int64, the number of embeddings of each class."""
        return self._pooled[1]

    @property
    def embeddings(self) -> Tensor:
        """(C, N, D) float32, the embeddings of each class, zeros in free slots."""
        return torch.cat([bank.ring for bank in self.banks], dim=1)

    @property
    def filled(self) -> Tensor:
        """(C, N) bool, False for free slots of `embeddings`."""
        return torch.cat([bank.filled for bank in self.banks], dim=1)
