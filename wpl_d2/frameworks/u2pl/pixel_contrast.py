"""U2PL's contrastive loss: what unreliable pixels are good for is to say which classes they are not of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from torch import Tensor, nn

from ...losses import info_nce
from ...structures import IGNORE
from ...utils.comm import all_gather_rows
from ..random_samples import nth_true, share_of, uniform
from .class_queues import ClassQueues


class Cells(NamedTuple):
    """What is known about the cells of the representation, first of the labeled images, then of the unlabeled ones.

    Attributes:
        student: (B, D, h, w) representation, with a gradient.
        teacher: (B, D, h, w) representation.
        probability: (B, C, h, w) float, the teacher's.
        label: (B, h, w) int64, true labels or pseudo-labels, `IGNORE` where there is none.
        certain: (B, h, w) bool, where anchors and positives are taken.
        uncertain: (B, h, w) bool, where negatives are taken.
        labeled: number of labeled images.
    """

    student: Tensor
    teacher: Tensor
    probability: Tensor
    label: Tensor
    certain: Tensor
    uncertain: Tensor
    labeled: int


class Shares(NamedTuple):
    """Uniform draws from [0, 1): `anchors` (C, A), `negatives` (C, A, M) and `keys` (C, 1)."""

    anchors: Tensor
    negatives: Tensor
    keys: Tensor


class PixelContrast(nn.Module):
    """The contrastive loss, and the queues of negatives that it draws from (U2PL, section 3.3).

    Of class c:
    - anchors are the student's representations of random certain cells labeled c with a probability above `min_prob`;
    - the positive is the mean of the teacher's representations of all certain cells labeled c;
    - negatives come from c's queue. It is fed by cells that are not of class c, but could be taken for it: labeled ones
      of another class for which c ranks among the `ranks[0]` most probable, and uncertain unlabeled ones for which c
      ranks from `ranks[0]` to below `ranks[1]`, that is so far down that c can be ruled out.

    The loss is the mean of `info_nce` over the classes with certain cells, 0 where there is but one of them. A class
    without anchors or with an empty queue adds 0. A step draws from what the steps before it left (published: and from
    its own cells); at most `keys` cells of each class and process join, so that all ranks exchange equally much.

    Attributes:
        queues: what is lasting.
    """

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        dim: int,
        queue_sizes: Sequence[int],
        anchors: int,
        negatives: int,
        keys: int,
        temperature: float,
        min_prob: float,
        ranks: tuple[int, int],
        as_published: bool = False,
    ) -> None:
        """Prepare the loss, with empty queues.

        Args:
            num_classes: number of classes, C.
            dim: length of a representation, D.
            queue_sizes: rows kept of each class.
            anchors: number of a class's anchors, A, drawn with replacement.
            negatives: number of an anchor's negatives, M, drawn with replacement.
            keys: cells of each class and process that join the queue in a step, at most.
            temperature: of `info_nce`.
            min_prob: an anchor's least probability of its class.
            ranks: first and last rank (exclusive, from 0) of a class that unlabeled cells rule out. The first is made
                small enough for C, for with few classes no rank would be left.
            as_published: as the code that the published figures come from: negatives must be labeled as the class that
                they are negatives of, which labeled cells never are; the n-th class of the batch takes anchors and
                positive of class n; and all images' labels lie on the first (`_labels_on_first`).
        """
        super().__init__()
        self.queues = ClassQueues(queue_sizes, dim)
        self.shape = num_classes, anchors, negatives
        self.keys = keys
        self.temperature = temperature
        self.min_prob = min_prob
        self.ranks = min(ranks[0], num_classes - 1), ranks[1]
        self.as_published = as_published
        self._staged: Tensor | None = None

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The arguments of `__init__` by `cfg.FRAMEWORK.U2PL`."""
        keys, classes = cfg.FRAMEWORK.U2PL, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        return {
            "num_classes": classes,
            "dim": cfg.MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM,
            "queue_sizes": [keys.QUEUE_SIZE_FIRST, *[keys.QUEUE_SIZE] * (classes - 1)],
            "anchors": keys.ANCHORS,
            "negatives": keys.NEGATIVES,
            "keys": keys.KEYS_PER_STEP,
            "temperature": keys.TEMPERATURE,
            "min_prob": keys.ANCHOR_PROB,
            "ranks": tuple(keys.NEGATIVE_RANKS),
            "as_published": keys.CONTRAST_AS_PUBLISHED,
        }

    def draw(self) -> Shares:
        """A step's random numbers."""
        classes, anchors, _ = self.shape
        sizes = (classes, anchors), self.shape, (classes, 1)
        return Shares(*(uniform(*size, device=self.queues.pushed.device) for size in sizes))

    def forward(self, cells: Cells, shares: Shares) -> Tensor:
        """The loss, a float32 scalar; stages new negatives for `after_step`."""
        own = self._own(cells)
        certain = own & cells.certain.flatten()
        probability = cells.probability.transpose(0, 1).flatten(1)
        anchored = certain & (probability > self.min_prob)
        chosen = share_of(anchored.sum(dim=1, keepdim=True), shares.anchors)
        anchors = _at(cells.student, nth_true(anchored, chosen))
        positives = _means(cells.teacher, certain)
        usable, present = anchored.any(dim=1), certain.any(dim=1)
        if self.as_published:
            nth = (present.cumsum(dim=0) - 1).clamp(min=0)
            anchors, positives, usable = anchors[nth], positives[nth], usable[nth]
        losses = info_nce(anchors, positives, self.queues.draw(shares.negatives), self.temperature)
        self._stage(cells, own, probability, shares.keys)
        total = torch.where(present & usable & (self.queues.counts > 0), losses, 0.0).sum()
        classes = present.sum()
        return torch.where(classes > 1, total / classes.clamp(min=1), 0.0)

    @torch.no_grad()
    def after_step(self) -> None:
        """Push what was staged on all ranks, in rank order, so that every rank's queues stay the same."""
        if self._staged is not None:
            ranks = all_gather_rows(self._staged).unflatten(0, (-1, self.shape[0]))
            self.queues.push(ranks.transpose(0, 1).flatten(1, 2))
        self._staged = None

    def _own(self, cells: Cells) -> Tensor:
        """(C, N) bool, which cells are labeled as which class."""
        classes = torch.arange(self.shape[0], device=cells.label.device).view(-1, 1, 1, 1)
        if not self.as_published:
            return (cells.label == classes).flatten(1)
        kinds = cells.label.tensor_split([cells.labeled])
        return torch.cat([_labels_on_first(labels, classes) for labels in kinds], dim=1).flatten(1)

    @torch.no_grad()
    def _stage(self, cells: Cells, own: Tensor, probability: Tensor, shares: Tensor) -> None:
        """Keep up to `keys` of the negatives of each class; rows of zeros fill up."""
        negative = self._negatives(cells, own, probability)
        # Evenly spaced among them, so that none comes twice.
        steps = (torch.arange(self.keys, device=own.device) + shares) / self.keys
        counts = negative.sum(dim=1, keepdim=True)
        order = (steps * counts.clamp(min=self.keys)).long()
        rows = _at(cells.teacher, nth_true(negative, order))
        rows = F.normalize(rows.float(), dim=-1).masked_fill((order >= counts).unsqueeze(-1), 0.0)
        self._staged = rows.to(self.queues.rows.dtype)

    def _negatives(self, cells: Cells, own: Tensor, probability: Tensor) -> Tensor:
        """(C, N) bool, which cells are negatives of which class."""
        low, high = self.ranks
        rank = probability.argsort(dim=0, descending=True).argsort(dim=0)
        image = torch.arange(len(cells.label), device=own.device).view(-1, 1, 1).expand_as(cells.label)
        confused, excluded = (rank < low) & ~own, (rank >= low) & (rank < high)
        negative = torch.where(image.flatten() < cells.labeled, confused, excluded) & cells.uncertain.flatten()
        return negative & own if self.as_published else negative


def _labels_on_first(labels: Tensor, classes: Tensor) -> Tensor:
    """Which class is where, by the published code: a cell of the first image has the labels that it has in any image.

    What is void there counts as class 0, if it is not void in the first image; the other images have no labels.

    Args:
        labels: (B, h, w) int64.
        classes: (C, 1, 1, 1) int64, all of them.

    Returns:
        (C, B, h, w) bool.
    """
    void = labels == IGNORE
    found = labels.masked_fill(void, 0) == classes
    first = found.any(dim=1, keepdim=True) & ~void[0]
    return torch.cat([first, torch.zeros_like(found[:, 1:])], dim=1)


def _at(maps: Tensor, cell: Tensor) -> Tensor:
    """Maps (B, D, h, w) at cells (C, n) int64, counted over all images -> (C, n, D)."""
    height, width = maps.shape[-2:]
    image, rest = cell // (height * width), cell % (height * width)
    return maps[image, :, rest // width, rest % width]


@torch.no_grad()
def _means(maps: Tensor, mask: Tensor) -> Tensor:
    """The mean of maps (B, D, h, w) over each row of a mask (C, B * h * w): (C, D) float32, zeros for an empty row."""
    share = mask.unflatten(1, (len(maps), *maps.shape[-2:])).float()
    with torch.autocast(maps.device.type, enabled=False):
        sums = torch.einsum("cbhw,bdhw->cd", share, maps.float())
    return sums / mask.sum(dim=1, keepdim=True).clamp(min=1)
