"""What AEL remembers of each class: how sure the student is of it, and which unlabeled images show it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...losses import cross_entropy
from ...utils.comm import all_gather_rows
from ..random_samples import choose_true


class ConfidenceBank(nn.Module):
    """A moving mean of the probability that the student gives to the true class of labeled pixels.

    It begins with 0: all classes are alike, and one that is seldom seen counts as one of the least sure.

    Attributes:
        confidence: (C,) float in [0, 1], the same on every rank.
    """

    confidence: Tensor

    def __init__(self, num_classes: int, momentum: float) -> None:
        """An empty bank.

        Args:
            num_classes: C.
            momentum: share of the old value in each step's new one.
        """
        super().__init__()
        self.momentum = momentum
        self.register_buffer("confidence", torch.zeros(num_classes))
        self._staged: Tensor | None = None

    @property
    def doubt(self) -> Tensor:
        """(C,) float: 1 - confidence."""
        return 1 - self.confidence

    @torch.no_grad()
    def stage(self, logits: Tensor, target: Tensor) -> None:
        """Offer a step's labeled images.

        Args:
            logits: (B, C, H, W) float, the student's.
            target: (B, H, W) int64 class ids or `IGNORE`.
        """
        classes = len(self.confidence)
        probability = torch.exp(-cross_entropy(logits, target)).flatten()
        labels = target.flatten().clamp(max=classes)
        sums = probability.new_zeros(2, classes + 1)
        sums[0].scatter_add_(0, labels, probability)
        sums[1].scatter_add_(0, labels, torch.ones_like(probability))
        self._staged = sums[:, :classes].unsqueeze(0)

    @torch.no_grad()
    def after_step(self) -> None:
        """Take what was staged on all ranks; a class without a pixel stays as it was. A collective call."""
        if self._staged is None:
            return
        total, count = all_gather_rows(self._staged).sum(dim=0)
        mean = total / count.clamp(min=1)
        moved = self.confidence.lerp(mean, 1 - self.momentum)
        self.confidence.copy_(torch.where(count > 0, moved, self.confidence))
        self._staged = None


class PresenceBank(nn.Module):
    """Which classes each unlabeled image shows, as far as it was labeled: its last view decides.

    Attributes:
        present: (N, C) bool, the same on every rank.
    """

    present: Tensor

    def __init__(self, num_images: int, num_classes: int, min_area: float) -> None:
        """A bank in which no image shows anything.

        Args:
            num_images: length of the unlabeled list, N.
            num_classes: C.
            min_area: a class is present from this share of the view's area on.
        """
        super().__init__()
        self.min_area = min_area
        self.register_buffer("present", torch.zeros(num_images, num_classes, dtype=torch.bool))
        self._staged: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def stage(self, images: Sequence[int], labels: Tensor) -> None:
        """Offer a step's pseudo-labels.

        Args:
            images: the place of each in the list.
            labels: (B, H, W) int64 class ids or `IGNORE`.
        """
        classes = self.present.shape[1]
        areas = labels.new_zeros(len(labels), classes + 1)
        areas.scatter_add_(1, labels.flatten(1).clamp(max=classes), torch.ones_like(labels).flatten(1))
        shown = areas[:, :classes] >= self.min_area * labels[0].numel()
        place = torch.tensor(images).to(labels.device, non_blocking=True)
        self._staged = place, shown.byte()

    @torch.no_grad()
    def after_step(self) -> None:
        """Take what was staged on all ranks; of several views of one image the classes add up. A collective call."""
        if self._staged is None:
            return
        place, shown = (all_gather_rows(rows) for rows in self._staged)
        present = self.present.view(torch.uint8)
        present.index_fill_(0, place, 0)
        present.scatter_reduce_(0, place.unsqueeze(1).expand_as(shown), shown, "amax")
        self._staged = None

    @torch.no_grad()
    def choose(self, classes: Tensor, shares: Tensor) -> Tensor:
        """An image that shows a class, any image where none does.

        Args:
            classes: (P,) int64.
            shares: (P,) float, uniform in [0, 1).

        Returns:
            (P,) int64, places in the list.
        """
        showing = self.present[:, classes].T
        return choose_true(showing | ~showing.any(dim=1, keepdim=True), shares)
