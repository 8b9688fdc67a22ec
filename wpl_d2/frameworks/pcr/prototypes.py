"""A classifier without weights of its own: several prototypes of each class, to which features are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from torch import Tensor, nn

from ...utils.comm import all_gather_rows
from ...weighting import MemoryBank
from ...weighting.indices import arange
from ...weighting.sampling import at_cells, sample_per_class

_ITERATIONS = 20
_STEPS = 16
"""The features in the bank are of this many micro-batches, of all processes together."""


class PrototypeClassifier(nn.Module):
    """The logit of a class is the cosine between a pixel and the nearest of its prototypes, over a temperature.

    Prototypes begin as the clusters of the features that are in a bank, and then follow those that are near to them. A
    step stages features (`stage_for_bank`, or `stage`), and then stores them (`store`), or lets the prototypes follow
    them (`follow`), equally on every rank. Features count by their direction alone.

    Attributes:
        vectors: (C, M, D) float32, the prototypes; zeros for a class of which nothing is known.
        bank: unit vectors to be clustered.
    """

    vectors: Tensor

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        dim: int,
        prototypes: int,
        bank_size: int,
        grid: int,
        temperature: float,
        align_corners: bool,
    ) -> None:
        """Know nothing yet.

        Args:
            num_classes: C.
            dim: channels of the features, D.
            prototypes: of each class, M.
            bank_size: features of each class that are clustered.
            grid: cells in a row and in a column of an image, of each of which `stage` takes one feature.
            temperature: see above.
            align_corners: for the bilinear resize of the logits.
        """
        super().__init__()
        self.register_buffer("vectors", torch.zeros(num_classes, prototypes, dim))
        self.bank = MemoryBank(num_classes, dim, bank_size)
        self.push = max(1, bank_size // _STEPS)
        self.grid = grid
        self.temperature = temperature
        self.align_corners = align_corners
        self._staged: list[tuple[Tensor, Tensor]] = []

    @classmethod
    def from_config(cls, cfg: Any, dim: int) -> dict[str, Any]:
        """The arguments of `__init__` from FRAMEWORK.PCR, for features of `dim` channels."""
        keys, head = cfg.FRAMEWORK.PCR, cfg.MODEL.SEM_SEG_HEAD
        return {
            "num_classes": head.NUM_CLASSES,
            "dim": dim,
            "prototypes": keys.PROTOTYPES,
            "bank_size": keys.BANK_SIZE,
            "grid": keys.GRID,
            "temperature": keys.TEMPERATURE,
            "align_corners": head.ALIGN_CORNERS,
        }

    def forward(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Classify features (B, D, h, w): logits (B, C, *size) float32. Prototypes get no gradient."""
        # Autocast would round the cosines to 8 bits.
        with torch.autocast(features.device.type, enabled=False):
            weights = F.normalize(self.vectors, dim=-1).flatten(0, 1)[:, :, None, None]
            cosines = F.conv2d(F.normalize(features.float(), dim=1), weights)
            logits = cosines.unflatten(1, self.vectors.shape[:2]).amax(dim=2) / self.temperature
            return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=self.align_corners)

    @torch.no_grad()
    def stage_for_bank(self, features: Tensor, labels: Tensor) -> None:
        """Stage random features of each class for `store`.

        Args:
            features: (B, D, h, w) float.
            labels: (B, H, W) int64 class ids or `IGNORE`.
        """
        rows, classes = sample_per_class(features.float(), labels, len(self.vectors), self.push)
        self._staged.append((F.normalize(rows, dim=1), classes))

    @torch.no_grad()
    def stage(self, features: Tensor, labels: Tensor, samples: Tensor) -> None:
        """Stage a random feature of each cell of the grid for `follow`.

        Args:
            features: (B, D, h, w) float.
            labels: (B, H, W) int64 class ids or `IGNORE`.
            samples: (B, 2, grid, grid) float, uniform in [0, 1).
        """
        height, width = features.shape[-2:]
        cell = arange(0, self.grid, device=features.device)
        rows = ((cell[:, None] + samples[:, 0]) * (height / self.grid)).long().clamp(max=height - 1)
        columns = ((cell + samples[:, 1]) * (width / self.grid)).long().clamp(max=width - 1)
        place = (rows * width + columns).flatten(1)
        chosen = features.float().flatten(2).gather(2, place[:, None].expand(-1, features.shape[1], -1))
        classes = at_cells(labels, height, width).flatten(1).gather(1, place)
        self._staged.append((F.normalize(chosen, dim=1).mT.flatten(0, 1), classes.flatten()))

    @torch.no_grad()
    def store(self) -> None:
        """Put what was staged into the bank. A collective call."""
        features, labels = self._take()
        self.bank.push(all_gather_rows(features), all_gather_rows(labels))

    @torch.no_grad()
    def cluster(self) -> None:
        """Make the prototypes of what is in the bank: each class's clusters by spherical k-means.

        They begin with the feature nearest to the class's mean, and then the one that is farthest from those before.
        """
        ring, filled, prototypes = self.bank.ring, self.bank.filled, self.vectors.shape[1]
        chosen = [_take_rows(ring, (ring @ ring.sum(dim=1)[:, :, None])[..., 0].masked_fill(~filled, -torch.inf))]
        for _ in range(prototypes - 1):
            near = (ring @ torch.stack(chosen, dim=2)).amax(dim=2)
            chosen.append(_take_rows(ring, -near.masked_fill(~filled, torch.inf)))
        centers = torch.stack(chosen, dim=1)
        for _ in range(_ITERATIONS):
            nearest = (ring @ centers.mT).argmax(dim=2, keepdim=True)
            members = (nearest == arange(0, prototypes, device=ring.device)) & filled[:, :, None]
            means = F.normalize(members.to(ring.dtype).mT @ ring, dim=2)
            centers = torch.where(members.any(dim=1)[:, :, None], means, centers)
        self.vectors.copy_(centers)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move each prototype to the mean of those staged features of its class to which it is nearest.

        A collective call.

        Args:
            momentum: share of the prototype that stays; one without such features stays as it is.
        """
        features, labels = self._take()
        classes, prototypes, dim = self.vectors.shape
        cosines = (features @ F.normalize(self.vectors, dim=-1).flatten(0, 1).T).unflatten(1, (classes, prototypes))
        own = labels.clamp(max=classes - 1).view(-1, 1, 1).expand(-1, 1, prototypes)
        nearest = cosines.gather(1, own).flatten(1).argmax(dim=1)
        # What has no label is in no column.
        column = (labels * prototypes + nearest)[:, None]
        members = (column == arange(0, classes * prototypes, device=labels.device)).to(features.dtype)
        sums = torch.cat([members.T @ features, members.sum(dim=0)[:, None]], dim=1)
        sums = all_gather_rows(sums[None]).sum(dim=0).view(classes, prototypes, dim + 1)
        total, count = sums.split([dim, 1], dim=2)
        self.vectors.lerp_(total / count.clamp(min=1), (1 - momentum) * (count > 0))

    def _take(self) -> tuple[Tensor, Tensor]:
        features, labels = (torch.cat(parts) for parts in zip(*self._staged, strict=True))
        self._staged = []
        return features, labels


def _take_rows(ring: Tensor, score: Tensor) -> Tensor:
    """The vector (C, D) of the highest score (C, N) of each class, of a ring (C, N, D)."""
    best = score.argmax(dim=1).view(-1, 1, 1).expand(-1, 1, ring.shape[2])
    return ring.gather(1, best)[:, 0]
