"""AEL's memory of the classes: the student's confidence in each, and the unlabeled images that show it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...losses import cross_entropy
from ...utils.comm import all_gather_rows
from ...weighting.sampling import class_sums
from ..random_samples import nth_true, random_index


class ConfidenceBank(nn.Module):
    """A moving mean of the student's probability of the true class, over the labeled pixels of each class.

    It begins at 0, so that a class that is seldom seen is one of the least confident.

    Attributes:
        confidence: (C,) float in [0, 1], the same on every rank.
    """

    confidence: Tensor

    def __init__(self, num_classes: int, momentum: float) -> None:
        """Start with a confidence of 0 in every class.

        Args:
            num_classes: C.
            momentum: factor of the old value in each update.
        """
        super().__init__()
        self.momentum = momentum
        self.register_buffer("confidence", torch.zeros(num_classes))
        self._staged: list[Tensor] = []

    @property
    def uncertainty(self) -> Tensor:
        """(C,) float: 1 - confidence."""
        return 1 - self.confidence

    @torch.no_grad()
    def stage(self, logits: Tensor, target: Tensor) -> None:
        """Stage the labeled images of a step, or some of them.

        Args:
            logits: (B, C, H, W) float, the student's.
            target: (B, H, W) int64 class ids or `IGNORE`.
        """
        probability = torch.exp(-cross_entropy(logits, target))
        self._staged.append(class_sums([probability], target, len(self.confidence)))

    @torch.no_grad()
    def after_step(self) -> None:
        """Update by what all ranks staged; a class without pixels keeps its value. A collective call."""
        if not self._staged:
            return
        count, total = all_gather_rows(torch.stack(self._staged)).sum(dim=0)
        mean = total / count.clamp(min=1)
        moved = self.confidence.lerp(mean, 1 - self.momentum)
        self.confidence.copy_(torch.where(count > 0, moved, self.confidence))
        self._staged = []


class PresenceBank(nn.Module):
    """Which classes each unlabeled image shows, by the pseudo-labels of its latest view.

    Attributes:
        present: (N, C) bool, the same on every rank.
    """

    present: Tensor

    def __init__(self, num_images: int, num_classes: int, min_area: float) -> None:
        """A bank in which no image shows anything.

        Args:
            num_images: length of the unlabeled list, N.
            num_classes: C.
            min_area: least ratio of a class's pixels to the view's at which the image shows it.
        """
        super().__init__()
        self.min_area = min_area
        self.register_buffer("present", torch.zeros(num_images, num_classes, dtype=torch.bool))
        self._staged: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def stage(self, images: Sequence[int], labels: Tensor) -> None:
        """Stage the pseudo-labels of a step, or some of them.

        Args:
            images: the index of each image in the list.
            labels: (B, H, W) int64 class ids or `IGNORE`.
        """
        classes = self.present.shape[1]
        areas = labels.new_zeros(len(labels), classes + 1)
        areas.scatter_add_(1, labels.flatten(1).clamp(max=classes), torch.ones_like(labels).flatten(1))
        shown = areas[:, :classes] >= self.min_area * labels[0].numel()
        place = torch.tensor(images).to(labels.device, non_blocking=True)
        self._staged.append((place, shown.byte()))

    @torch.no_grad()
    def after_step(self) -> None:
        """Store what all ranks staged; several views of one image show the classes of any. A collective call."""
        if not self._staged:
            return
        place, shown = (all_gather_rows(torch.cat(rows)) for rows in zip(*self._staged, strict=True))
        present = self.present.view(torch.uint8)
        present.index_fill_(0, place, 0)
        present.scatter_reduce_(0, place.unsqueeze(1).expand_as(shown), shown, "amax")
        self._staged = []

    @torch.no_grad()
    def sample_images(self, classes: Tensor, samples: Tensor) -> Tensor:
        """Random images that show given classes; for a class that none shows, one of all images.

        Args:
            classes: (P,) int64.
            samples: (P,) float, uniform in [0, 1).

        Returns:
            (P,) int64, indices in the list.
        """
        showing = self.present[:, classes].T
        return sample_true(showing | ~showing.any(dim=1, keepdim=True), samples)


def sample_classes(logits: Tensor, samples: Tensor) -> Tensor:
    """Random classes with the probabilities softmax(logits), with replacement.

    Args:
        logits: (C,) float; -inf for a class that is never sampled.
        samples: (N,) float, uniform in [0, 1).

    Returns:
        (N,) int64 class ids.
    """
    edges = logits.softmax(dim=0).cumsum(dim=0)
    return torch.searchsorted(edges, samples * edges[-1], right=True).clamp_(max=len(logits) - 1)


def sample_true(mask: Tensor, samples: Tensor) -> Tensor:
    """The column of a random True of each row, all equally likely.

    Args:
        mask: (N, M) bool.
        samples: (N,) float, uniform in [0, 1).

    Returns:
        (N,) int64; M - 1 for a row without any.
    """
    return nth_true(mask, random_index(mask.sum(dim=1), samples).unsqueeze(1)).squeeze(1)
