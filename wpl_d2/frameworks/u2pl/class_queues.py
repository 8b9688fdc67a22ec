"""First-in-first-out representations per class, to draw negatives from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..random_samples import random_index


class ClassQueues(nn.Module):
    """The latest representations of each class as unit vectors; classes may have queues of different lengths.

    In float16: U2PL's 650 000 rows of VOC take 333 MB (float32: 666 MB), and numbers up to 1 keep 11 bits of their
    fraction (bfloat16: 8). No operation has a shape that depends on the data.

    Attributes:
        rows: (sum of sizes + 1, dim) float16, the queues one after the other. The last row is zero: rows that are not
            stored are written there.
        pushed: (C,) int64, how many rows were ever pushed for each class.
        sizes: (C,) int64, the lengths of the queues.
    """

    rows: Tensor
    pushed: Tensor
    sizes: Tensor
    starts: Tensor

    def __init__(self, sizes: Sequence[int], dim: int) -> None:
        """Empty queues.

        Args:
            sizes: length of each class's queue, C numbers of 1 or more.
            dim: length of a row, D.
        """
        super().__init__()
        self.register_buffer("rows", torch.zeros(sum(sizes) + 1, dim, dtype=torch.float16))
        self.register_buffer("pushed", torch.zeros(len(sizes), dtype=torch.int64))
        ends = torch.tensor(sizes).cumsum(dim=0)
        self.register_buffer("sizes", torch.tensor(sizes), persistent=False)
        self.register_buffer("starts", ends - torch.tensor(sizes), persistent=False)

    @property
    def counts(self) -> Tensor:
        """(C,) int64: how many rows are stored for each class."""
        return torch.minimum(self.pushed, self.sizes)

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Store rows in order, each in place of the oldest of its class.

        Args:
            rows: (C, N, D) float, of unit length; rows of zeros are skipped.
        """
        given = rows.any(dim=-1)
        order, new = given.cumsum(dim=1) - 1, given.sum(dim=1)
        # Of more rows than fit only the last are written: the order of writes to one place is not defined.
        stored = given & (order >= (new - self.sizes).unsqueeze(1))
        place = self.starts.unsqueeze(1) + (self.pushed.unsqueeze(1) + order) % self.sizes.unsqueeze(1)
        place = place.masked_fill(~stored, len(self.rows) - 1)
        self.rows[place] = rows.masked_fill(~stored.unsqueeze(-1), 0.0).to(self.rows.dtype)
        self.pushed += new

    def sample(self, samples: Tensor) -> Tensor:
        """Random rows of each class, with replacement.

        Args:
            samples: (C, ...) float, uniform in [0, 1).

        Returns:
            (C, ..., D) float16, zeros for a class whose queue is empty.
        """
        per_class = (-1, *[1] * (samples.dim() - 1))
        counts, starts = self.counts.view(per_class), self.starts.view(per_class)
        return self.rows[starts + random_index(counts, samples)]
