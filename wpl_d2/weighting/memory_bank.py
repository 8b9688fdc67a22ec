"""The FIFO memory bank of embeddings per class, and its prototypes (paper, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from .indices import arange, class_edges


class MemoryBank(nn.Module):
    """The latest `size` embeddings of each class.

    No shape depends on the data, so that the host never waits for the device.

    Attributes:
        ring: (num_classes, size, dim) float32, zeros in free slots.
        pushed: (num_classes,) int64, how many embeddings were ever pushed for each class.
    """

    ring: Tensor
    pushed: Tensor

    def __init__(self, num_classes: int, dim: int, size: int) -> None:
        """An empty bank.

        Args:
            num_classes: number of classes, C.
            dim: length of an embedding, D.
            size: embeddings kept per class.

        Raises:
            ValueError: one of them is below 1.
        """
        super().__init__()
        if min(num_classes, dim, size) < 1:
            raise ValueError(
                f"WEIGHTING.BANK_SIZE: a bank of {num_classes} classes x {size} embeddings x {dim} channels "
                "holds nothing; give three numbers of 1 or more"
            )
        self.register_buffer("ring", torch.zeros(num_classes, size, dim))
        self.register_buffer("pushed", torch.zeros(num_classes, dtype=torch.int64))

    @property
    def counts(self) -> Tensor:
        """(C,) int64: how many embeddings are stored for each class."""
        return self.pushed.clamp(max=self.ring.shape[1])

    @property
    def filled(self) -> Tensor:
        """(C, size) bool: which slots of the ring hold an embedding."""
        return torch.arange(self.ring.shape[1], device=self.ring.device) < self.pushed.unsqueeze(1)

    @torch.no_grad()
    def push(self, features: Tensor, labels: Tensor) -> None:
        """Store every row in order, in place of the oldest of its class; rows labeled `IGNORE` are skipped.

        Args:
            features: (N, D) float.
            labels: (N,) int64 class ids or `IGNORE`.

        Raises:
            ValueError: the shapes do not fit.
        """
        classes, size, dim = self.ring.shape
        if features.dim() != 2 or features.shape[1] != dim or labels.shape != features.shape[:1]:
            raise ValueError(
                f"MemoryBank.push: features {tuple(features.shape)} do not fit labels {tuple(labels.shape)}; "
                f"give (N, {dim}) and (N,)"
            )
        if not len(labels):
            return
        # Those to be skipped come last.
        ordered, rows = labels.sort(stable=True)
        edges = class_edges(ordered, classes)
        start, end, stored = edges[:-1], edges[1:], edges[-1]
        # Always N rows are written: those to be skipped repeat another one, the last one or the first of the class that
        # is stored. If none is, a slot's own content is rewritten.
        place = arange(0, len(labels), device=labels.device).minimum(stored - 1)
        label = ordered[place].clamp_(max=classes - 1)
        place = place.maximum((end - size)[label])
        slot = ((self.pushed - start)[label] + place).remainder_(size).add_(label, alpha=size)
        slots = self.ring.view(-1, dim)
        slots[slot] = torch.where(stored > 0, features[rows[place]].to(slots.dtype), slots[slot])
        self.pushed += end - start

    def prototypes(self) -> Tensor:
        """(C, D) float32: the mean of each class's embeddings, zeros for an empty class."""
        return pooled_prototypes([self])[0]


@torch.no_grad()
def pooled_prototypes(banks: Sequence[MemoryBank]) -> tuple[Tensor, Tensor]:
    """The mean of each class's embeddings over several banks.

    Args:
        banks: at least one; all of the same classes and channels.

    Returns:
        (C, D) float32, zeros for an empty class, and (C,) int64, the number of embeddings of each class.
    """
    counts = reduce(torch.add, [bank.counts for bank in banks])
    # Free slots are zeros.
    sums = reduce(torch.add, [bank.ring.sum(dim=1) for bank in banks])
    return sums / counts.clamp(min=1).unsqueeze(1), counts
