"""Accuracy of boxes, and of pseudo-labels inside and outside of them (paper, supplementary table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.structures import Boxes, pairwise_iou
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor

from ..structures import IGNORE, ClassBoxes, Detections, PseudoLabels
from ..utils.comm import sum_over_ranks
from .statistics import count_by_class, percent

OBJECTS = "all objects"
"""The row of all object classes together."""


@dataclass(frozen=True)
class AgreementRow:
    """The figures of one class, for boxes of at least one score: percent, NaN where there is nothing to judge.

    Attributes:
        boxes: number of boxes.
        box: accuracy of the boxes.
        pixel: accuracy of the confident pixels that are labeled as the class.
        inside: accuracy of those in a box of the class, which are the reliable ones.
        outside: accuracy of those in no box of the class.
        covered: the part of the confident pixels that is inside.
    """

    boxes: int
    box: float
    pixel: float
    inside: float
    outside: float
    covered: float


Agreement = dict[float, dict[str, AgreementRow]]
"""Figures by least score of a box and by class name, or `OBJECTS`."""


class BoxAgreement:
    """Counts right and wrong boxes and pixels for several least scores of a box in one pass."""

    def __init__(
        self,
        classes: Sequence[str],
        objects: Sequence[int],
        scores: Sequence[float],
        min_confidence: float,
        min_iou: float,
    ) -> None:
        """Start from zero.

        Args:
            classes: names of all semantic classes.
            objects: ids of the detector's classes.
            scores: the least scores of a box.
            min_confidence: pixels of at least this confidence count, as for RPPI.
            min_iou: a box is right if its IoU with a true box of its class is at least this.
        """
        self.classes = list(classes)
        self.objects = list(objects)
        self.scores = sorted(set(scores))
        self.min_confidence = min_confidence
        self.min_iou = min_iou
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        # Row 0 counts everything, even pixels in no box; row i + 1 what has a score of at least `scores[i]`.
        self._boxes, self._pixels = torch.zeros(2, len(self.scores) + 1, len(self.classes), 2, dtype=torch.int64)

    @torch.no_grad()
    def score_image(self, pseudo: PseudoLabels, detections: Detections, target: Tensor, truth: ClassBoxes) -> None:
        """Count one image.

        Args:
            pseudo: its labels (1, H, W).
            detections: of any score.
            target: (1, H, W) integer true classes, `IGNORE` where there is none.
            truth: the true boxes.
        """
        judged = pseudo.valid & (target != IGNORE) & (pseudo.labels != IGNORE)
        judged &= pseudo.confidence >= self.min_confidence
        best = best_scores(pseudo.labels[0], detections)
        self._pixels += self._count(best, pseudo.labels[0], (pseudo.labels == target)[0], judged[0])
        right = self._right_boxes(detections, truth)
        self._boxes += self._count(detections.scores, detections.classes, right, torch.ones_like(right))

    def state(self) -> tuple[Tensor, Tensor]:
        """What was counted."""
        return self._boxes, self._pixels

    def add_state(self, state: tuple[Tensor, Tensor]) -> None:
        """Add what another one has counted, as of `state`."""
        self._boxes, self._pixels = self._boxes + state[0], self._pixels + state[1]

    def evaluate(self) -> Agreement | None:
        """The figures over all processes' images on the main process, None on the others."""
        boxes, pixels = sum_over_ranks(self._boxes), sum_over_ranks(self._pixels)
        if boxes is None or pixels is None:
            return None
        return {
            score: {name: _row(boxes[i, ids], pixels[i, ids], pixels[0, ids]) for name, ids in self._rows()}
            for i, score in enumerate(self.scores, start=1)
        }

    def _count(self, scores: Tensor, classes: Tensor, right: Tensor, mask: Tensor) -> Tensor:
        """The numbers of wrong and right ones by least score and class: (S + 1, C, 2) on the CPU."""
        count, rows = len(self.classes), len(self.scores) + 1
        reached = torch.bucketize(scores, scores.new_tensor(self.scores), right=True)
        counts = count_by_class(reached * count + classes, right, mask, rows * count).view(rows, count, 2)
        return counts.flip(0).cumsum(0).flip(0).cpu()

    def _right_boxes(self, detections: Detections, truth: ClassBoxes) -> Tensor:
        true_boxes, true_classes = (part.to(detections.scores.device) for part in truth)
        if not len(true_classes):
            return torch.zeros_like(detections.scores, dtype=torch.bool)
        overlap = pairwise_iou(Boxes(detections.boxes), Boxes(true_boxes))
        same = detections.classes[:, None] == true_classes
        return (overlap * same).amax(dim=1) >= self.min_iou

    def _rows(self) -> list[tuple[str, list[int]]]:
        return [(OBJECTS, self.objects), *((name, [index]) for index, name in enumerate(self.classes))]


def best_scores(labels: Tensor, detections: Detections) -> Tensor:
    """For each pixel of an image the best score of a box of its own class that covers its center.

    `best_boxes` finds the same without waiting for the device, as training must; this is far faster on a CPU.

    Args:
        labels: (H, W) int64 class ids.
        detections: of the image.

    Returns:
        (H, W) float, -inf where there is no such box.
    """
    best = torch.full(labels.shape, -torch.inf, dtype=detections.scores.dtype, device=labels.device)
    boxes, scores, classes = detections.select(detections.scores.argsort())
    # From the first row or column whose center is inside to the first one behind.
    edges = (boxes - 0.5).ceil().clamp(min=0).long().tolist()
    # The later ones paint over those of lower scores.
    for (x0, y0, x1, y1), score, own in zip(edges, scores, classes, strict=True):
        window = (slice(y0, y1), slice(x0, x1))
        best[window] = torch.where(labels[window] == own, score, best[window])
    return best


def _row(boxes: NDArray[np.int64], inside: NDArray[np.int64], pixels: NDArray[np.int64]) -> AgreementRow:
    """From (n, 2) counts of wrong and right ones of n classes."""
    boxes, inside, pixels = (part.sum(axis=0) for part in (boxes, inside, pixels))
    outside = pixels - inside
    return AgreementRow(
        boxes=int(boxes.sum()),
        box=percent(boxes[1], boxes.sum()),
        pixel=percent(pixels[1], pixels.sum()),
        inside=percent(inside[1], inside.sum()),
        outside=percent(outside[1], outside.sum()),
        covered=percent(inside.sum(), pixels.sum()),
    )


_COLUMNS = ("boxes", "right boxes", "pixel", "pixel ∩ box", "pixel \\ box", "in a box")


def agreement_tables(agreement: Agreement, score: float) -> str:
    """Two tables: every class at one score, and all objects together at every score; percent.

    Args:
        agreement: of `BoxAgreement.evaluate`.
        score: one of its scores.
    """
    classes = [[name, *_cells(row)] for name, row in agreement[score].items()]
    scores = [[f"{key:g}", *_cells(rows[OBJECTS])] for key, rows in agreement.items()]
    return "\n\n".join(
        tabulate(rows, headers=[title, *_COLUMNS], tablefmt="pipe", disable_numparse=True)
        for title, rows in ((f"score >= {score:g}", classes), (f"{OBJECTS}, score >=", scores))
    )


def _cells(row: AgreementRow) -> list[str]:
    shares = (row.box, row.pixel, row.inside, row.outside, row.covered)
    return [str(row.boxes), *("-" if np.isnan(share) else f"{share:.1f}" for share in shares)]
