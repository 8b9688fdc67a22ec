"""U2PL's contrastive loss: unreliable pixels are negatives of the classes that they are certainly not of."""

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
from ..random_samples import nth_true, random_index, uniform
from ..validation import per_micro_batch
from .class_queues import ClassQueues


class Cells(NamedTuple):
    """The cells of a batch's representation, first of the labeled images, then of the unlabeled ones.

    Attributes:
        student: (B, D, h, w) representation, with a gradient.
        teacher: (B, D, h, w) representation.
        probability: (B, C, h, w) float, the teacher's.
        label: (B, h, w) int64, true labels or pseudo-labels, `IGNORE` where there is none.
        certain: (B, h, w) bool, candidates for anchors and positives.
        uncertain: (B, h, w) bool, candidates for negatives.
        labeled: number of labeled images.
    """

    student: Tensor
    teacher: Tensor
    probability: Tensor
    label: Tensor
    certain: Tensor
    uncertain: Tensor
    labeled: int


class ContrastSamples(NamedTuple):
    """Uniform samples in [0, 1): `anchors` (C, A), `negatives` (C, A, M) and `keys` (C, 1)."""

    anchors: Tensor
    negatives: Tensor
    keys: Tensor


class PixelContrast(nn.Module):
    """The contrastive loss, and the queues of its negatives (U2PL, section 3.3).

    For each class c:
    - the anchors are the student's representations of random certain cells labeled c, with a probability above
      `min_prob`;
    - the positive is the mean of the teacher's representations of all certain cells labeled c;
    - the negatives are random rows of c's queue. Two kinds of cells enter it: labeled ones of another class for which c
      is among the `ranks[0]` most probable classes, and uncertain unlabeled ones for which c has a rank from `ranks[0]`
      to below `ranks[1]`, so low that they can hardly be of class c.

    The loss is the mean of `info_nce` over the classes with certain cells, 0 if there is only one such class. A class
    without anchors or with an empty queue adds 0. Negatives come from earlier steps (published: also from the current
    one), and at most `keys` cells of each class and process enter a queue in a step, so that all ranks exchange tensors
    of equal size.

    Attributes:
        queues: the only lasting state.
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
        """Start with empty queues.

        Args:
            num_classes: number of classes, C.
            dim: length of a representation, D.
            queue_sizes: length of each class's queue.
            anchors: number of anchors of a class, A, sampled with replacement.
            negatives: number of negatives of an anchor, M, sampled with replacement.
            keys: the most cells of each class and process that enter the queue from a forward.
            temperature: of `info_nce`.
            min_prob: an anchor's probability of its class is above this.
            ranks: first and last (exclusive) rank, from 0, of the classes that an unlabeled cell is a negative of. The
                first is lowered to C - 1 where it is higher, so that some rank is left.
            as_published: behave as the published code: negatives must be labeled as the class that they are negatives
                of, which labeled cells never are; the n-th class of the batch takes anchors and positive of class n;
                and the first image has all images' labels (`_labels_on_first`).
        """
        super().__init__()
        self.queues = ClassQueues(queue_sizes, dim)
        self.shape = num_classes, anchors, negatives
        self.keys = keys
        self.temperature = temperature
        self.min_prob = min_prob
        self.ranks = min(ranks[0], num_classes - 1), ranks[1]
        self.as_published = as_published
        self._staged: list[Tensor] = []

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The arguments of `__init__` from FRAMEWORK.U2PL."""
        keys, classes = cfg.FRAMEWORK.U2PL, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        return {
            "num_classes": classes,
            "dim": cfg.MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM,
            "queue_sizes": [keys.QUEUE_SIZE_FIRST, *[keys.QUEUE_SIZE] * (classes - 1)],
            "anchors": keys.ANCHORS,
            "negatives": keys.NEGATIVES,
            "keys": per_micro_batch(cfg, keys.KEYS_PER_STEP),
            "temperature": keys.TEMPERATURE,
            "min_prob": keys.ANCHOR_PROB,
            "ranks": tuple(keys.NEGATIVE_RANKS),
            "as_published": keys.CONTRAST_AS_PUBLISHED,
        }

    def random_samples(self) -> ContrastSamples:
        """A step's random samples."""
        classes, anchors, _ = self.shape
        sizes = (classes, anchors), self.shape, (classes, 1)
        return ContrastSamples(*(uniform(*size, device=self.queues.pushed.device) for size in sizes))

    def forward(self, cells: Cells, samples: ContrastSamples) -> Tensor:
        """The loss, a float32 scalar; stages new negatives for `after_step`."""
        own = self._own(cells)
        certain = own & cells.certain.flatten()
        probability = cells.probability.transpose(0, 1).flatten(1)
        anchored = certain & (probability > self.min_prob)
        chosen = random_index(anchored.sum(dim=1, keepdim=True), samples.anchors)
        anchors = _at(cells.student, nth_true(anchored, chosen))
        positives = _means(cells.teacher, certain)
        usable, present = anchored.any(dim=1), certain.any(dim=1)
        if self.as_published:
            nth = (present.cumsum(dim=0) - 1).clamp(min=0)
            anchors, positives, usable = anchors[nth], positives[nth], usable[nth]
        losses = info_nce(anchors, positives, self.queues.sample(samples.negatives), self.temperature)
        self._stage(cells, own, probability, samples.keys)
        total = torch.where(present & usable & (self.queues.counts > 0), losses, 0.0).sum()
        classes = present.sum()
        return torch.where(classes > 1, total / classes.clamp(min=1), 0.0)

    @torch.no_grad()
    def after_step(self) -> None:
        """Push the staged negatives of all ranks, in rank order, so that the queues are the same on every rank."""
        if self._staged:
            forwards = all_gather_rows(torch.cat(self._staged)).unflatten(0, (-1, self.shape[0]))
            self.queues.push(forwards.transpose(0, 1).flatten(1, 2))
        self._staged = []

    def _own(self, cells: Cells) -> Tensor:
        """(C, N) bool, which cells are labeled as which class."""
        classes = torch.arange(self.shape[0], device=cells.label.device).view(-1, 1, 1, 1)
        if not self.as_published:
            return (cells.label == classes).flatten(1)
        kinds = cells.label.tensor_split([cells.labeled])
        return torch.cat([_labels_on_first(labels, classes) for labels in kinds], dim=1).flatten(1)

    @torch.no_grad()
    def _stage(self, cells: Cells, own: Tensor, probability: Tensor, samples: Tensor) -> None:
        """Stage up to `keys` negatives of each class, padded with rows of zeros."""
        negative = self._negatives(cells, own, probability)
        # Evenly spaced among them, so that none is taken twice.
        steps = (torch.arange(self.keys, device=own.device) + samples) / self.keys
        counts = negative.sum(dim=1, keepdim=True)
        order = (steps * counts.clamp(min=self.keys)).long()
        rows = _at(cells.teacher, nth_true(negative, order))
        rows = F.normalize(rows.float(), dim=-1).masked_fill((order >= counts).unsqueeze(-1), 0.0)
        self._staged.append(rows.to(self.queues.rows.dtype))

    def _negatives(self, cells: Cells, own: Tensor, probability: Tensor) -> Tensor:
        """(C, N) bool, which cells are negatives of which class."""
        low, high = self.ranks
        rank = probability.argsort(dim=0, descending=True).argsort(dim=0)
        image = torch.arange(len(cells.label), device=own.device).view(-1, 1, 1).expand_as(cells.label)
        confused, excluded = (rank < low) & ~own, (rank >= low) & (rank < high)
        negative = torch.where(image.flatten() < cells.labeled, confused, excluded) & cells.uncertain.flatten()
        return negative & own if self.as_published else negative


def _labels_on_first(labels: Tensor, classes: Tensor) -> Tensor:
    """The published code's masks of classes: a cell of the first image has the labels that it has in any image.

    Void cells of the other images count as class 0, void cells of the first have no label; the other images have none.

    Args:
        labels: (B, h, w) int64.
        classes: (C, 1, 1, 1) int64, all class ids.

    Returns:
        (C, B, h, w) bool.
    """
    void = labels == IGNORE
    found = labels.masked_fill(void, 0) == classes
    first = found.any(dim=1, keepdim=True) & ~void[0]
    return torch.cat([first, torch.zeros_like(found[:, 1:])], dim=1)


def _at(maps: Tensor, cell: Tensor) -> Tensor:
    """Maps (B, D, h, w) at cells (C, n) int64, numbered over the whole batch -> (C, n, D)."""
    height, width = maps.shape[-2:]
    image, rest = cell // (height * width), cell % (height * width)
    return maps[image, :, rest // width, rest % width]


@torch.no_grad()
def _means(maps: Tensor, mask: Tensor) -> Tensor:
    """The mean of maps (B, D, h, w) over each row of a mask (C, B * h * w): (C, D) float32, zeros for an empty row."""
    chosen = mask.unflatten(1, (len(maps), *maps.shape[-2:])).float()
    with torch.autocast(maps.device.type, enabled=False):
        sums = torch.einsum("cbhw,bdhw->cd", chosen, maps.float())
    return sums / mask.sum(dim=1, keepdim=True).clamp(min=1)
