"""What flows between the packages: outputs of the segmentation head, pseudo-labels, detections and loss terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .utils.cpu_speed import best_class

IGNORE = 255
"""The class id of a pixel without a label, in every label map of the package; data sets' own values become it."""


def among_classes(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Which of the class ids (...) int64 are among some classes: (...) bool, False for `IGNORE`."""
    table = torch.zeros(IGNORE + 1, dtype=torch.bool)
    table[list(classes)] = True
    return table.to(labels.device, non_blocking=True)[labels]


class SemSegOutput(NamedTuple):
    """What a segmentation head returns.

    Attributes:
        logits: (B, C, H, W) of the input's size.
        embedding: (B, D, h, w), what the classifier sees.
        representation: (B, R, h, w), what contrastive losses compare pixels by; None in evaluation, and where there is
            none (MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM).
    """

    logits: Tensor
    embedding: Tensor
    representation: Tensor | None = None


@dataclass(frozen=True)
class PseudoLabels:
    """A model's labels for the weak views of B unlabeled images, and what is known about each pixel.

    Attributes:
        labels: (B, H, W) int64 class ids, `IGNORE` where there is none.
        confidence: (B, H, W) float, the predicted probability of the label.
        valid: (B, H, W) bool, False in padding.
        reliable: (B, H, W) bool, True where a confident segmenter and the detector agree (RPPI).
        weight: (B, H, W) float, the factor of the pixel's loss (PPW); 1 is neutral.
    """

    labels: Tensor
    confidence: Tensor
    valid: Tensor
    reliable: Tensor
    weight: Tensor

    @classmethod
    def from_logits(cls, logits: Tensor, valid: Tensor | None = None) -> PseudoLabels:
        """The most probable class of every pixel; no pixel is reliable yet, and every weight is neutral.

        Args:
            logits: (B, C, H, W) float.
            valid: (B, H, W) bool, where it is False the label is `IGNORE`; None: all pixels are valid.
        """
        confidence, labels = best_class(logits.float().softmax(dim=1))
        valid = torch.ones_like(labels, dtype=torch.bool) if valid is None else valid
        return cls(
            labels=labels.masked_fill(~valid, IGNORE),
            confidence=confidence,
            valid=valid,
            reliable=torch.zeros_like(valid),
            weight=torch.ones_like(confidence),
        )

    def map(self, move: Callable[[Tensor], Tensor]) -> PseudoLabels:
        """Apply `move` to every field, so that all that is known about a pixel moves with it."""
        return PseudoLabels(*(move(getattr(self, field.name)) for field in fields(self)))

    def where(self, mask: Tensor, other: PseudoLabels) -> PseudoLabels:
        """Take every field from `other` where `mask` (B, H, W) bool is True."""
        pairs = ((getattr(other, field.name), getattr(self, field.name)) for field in fields(self))
        return PseudoLabels(*(torch.where(mask, theirs, ours) for theirs, ours in pairs))

    def replace(self, **changes: Tensor) -> PseudoLabels:
        """A copy with some fields replaced."""
        return replace(self, **changes)


PixelLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, C, H, W), target) -> (B, H, W) float, 0 where the target is `IGNORE`."""


@dataclass(frozen=True)
class LossTerm:
    """One per-pixel loss of a step, before it is reduced to a number (`wpl_d2.losses.reduce_term`).

    Attributes:
        name: key of the loss in the metrics, such as "loss_unsup".
        logits: (B, C, H, W) float.
        target: what `pixel_loss` takes: (B, H, W) int64, `IGNORE` = no loss, or class probabilities (B, C, H, W).
        pixel_loss: the loss of each pixel.
        mask: (B, H, W) bool or float, the framework's own selection of pixels, or factor of each.
        norm: (B, H, W) bool or float; its sum is the loss's denominator.
        coefficient: factor of the reduced loss.
        weight: (B, H, W) float, the pseudo-labels' weights; None on labeled images, where they do not apply.
    """

    name: str
    logits: Tensor
    target: Tensor
    pixel_loss: PixelLoss
    mask: Tensor
    norm: Tensor
    coefficient: float = 1.0
    weight: Tensor | None = None


@dataclass
class StepRecord:
    """What a step leaves for pictures and diagnostics: detached, and no part of the state.

    Attributes:
        labeled: the first labeled image (C, H, W), its labels (H, W) int64 and the student's logits (C, H, W).
        weak_views: (C, H, W), the images of `pseudo_labels`.
        pseudo_labels: before mixing; None where none were made.
        scalars: about the pseudo-labels, under their names in metrics.json.
    """

    labeled: tuple[Tensor, Tensor, Tensor] | None = None
    weak_views: list[Tensor] = field(default_factory=list)
    pseudo_labels: PseudoLabels | None = None
    scalars: dict[str, Tensor] = field(default_factory=dict)

    def joined(self, other: StepRecord) -> StepRecord:
        """This record and that of a further micro-batch of the step, of whose scalars the parts add up."""
        pseudo, further = self.pseudo_labels, other.pseudo_labels
        if pseudo is not None and further is not None:
            names = [field.name for field in fields(pseudo)]
            pseudo = PseudoLabels(*(torch.cat([getattr(pseudo, name), getattr(further, name)]) for name in names))
        scalars = {name: value + other.scalars[name] for name, value in self.scalars.items()}
        return StepRecord(self.labeled, self.weak_views + other.weak_views, pseudo, scalars)


class Detections(NamedTuple):
    """The boxes that a detector found in one image.

    Attributes:
        boxes: (N, 4) float xyxy in pixels, half-open.
        scores: (N,) float in [0, 1].
        classes: (N,) int64 semantic class ids.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor

    @classmethod
    def from_instances(cls, instances: Any, object_ids: Tensor) -> Detections:
        """Convert what a detector of Detectron2 returns.

        Args:
            instances: `Instances` with `pred_boxes`, `scores` and `pred_classes`.
            object_ids: (K,) int64 on the same device, the semantic class id of each of the detector's classes.
        """
        return cls(instances.pred_boxes.tensor, instances.scores, object_ids[instances.pred_classes])

    @classmethod
    def none(cls) -> Detections:
        """Those of an image in which nothing was found, on the CPU."""
        return cls(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))

    def select(self, keep: Tensor) -> Detections:
        """The detections that a mask (N,) bool or indices (M,) int64 choose."""
        return Detections(*(field[keep] for field in self))

    def to(self, device: torch.device | str) -> Detections:
        """The same on another device."""
        return Detections(*(field.to(device) for field in self))


ClassBoxes = tuple[Tensor, Tensor]
"""The boxes of one image with their classes, without scores: (N, 4) float xyxy half-open in pixels and (N,) int64
semantic class ids."""


def class_boxes(detections: Iterable[Detections], min_score: float) -> list[ClassBoxes]:
    """The boxes of each image that have at least a score, in [0, 1]."""
    kept = [found.select(found.scores >= min_score) for found in detections]
    return [(found.boxes, found.classes) for found in kept]
