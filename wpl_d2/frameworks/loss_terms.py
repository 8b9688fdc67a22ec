"""The loss terms that frameworks share, and how to split the output for a batch of several kinds of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from ..losses import cross_entropy, ohem_mask
from ..modeling import UnifiedSegDet
from ..structures import IGNORE, LossTerm, PseudoLabels, SemSegOutput


def supervised_term(
    name: str,
    logits: Tensor,
    target: Tensor,
    ohem: Mapping[str, Any] | None = None,
    coefficient: float = 1.0,
    class_weights: Tensor | None = None,
) -> LossTerm:
    """The mean over the labeled pixels of their cross entropy, times the weights of their classes.

    Args:
        name: key of the loss in the metrics.
        logits: (B, C, H, W) float.
        target: (B, H, W) int64 class ids, `IGNORE` where there is none.
        ohem: `threshold` and `min_kept` of `ohem_mask`; None disables OHEM.
        coefficient: factor of the loss.
        class_weights: (C,) float32; None: all are 1.
    """
    pixel_loss = cross_entropy if class_weights is None else partial(cross_entropy, class_weights=class_weights)
    kept = target != IGNORE if ohem is None else ohem_mask(logits.detach(), target, **ohem)
    return LossTerm(name, logits, target, pixel_loss, mask=kept, norm=kept, coefficient=coefficient)


def labeled_losses(
    model: UnifiedSegDet,
    items: Sequence[Mapping[str, Any]],
    target: Tensor,
    features: Mapping[str, Tensor],
    logits: Tensor,
    ohem: Mapping[str, Any] | None = None,
    coefficient: float = 1.0,
    class_weights: Tensor | None = None,
) -> tuple[list[LossTerm], dict[str, Tensor]]:
    """The losses of all of a model's heads on labeled images: per-pixel terms, and the detector's losses.

    Args:
        model: that is trained.
        items: the labeled items.
        target: (B, H, W) int64, their class ids or `IGNORE`.
        features: the model's, of these images and, behind them, of all others of the same forward.
        logits: (B, C, H, W) float, the model's for the labeled images alone.
        ohem: as in `supervised_term`.
        coefficient: factor of the segmentation losses.
        class_weights: as in `supervised_term`.
    """
    size, losses = (target.shape[-2], target.shape[-1]), dict[str, Tensor]()
    if model.has_detector:
        instances = [item["instances"].to(model.device) for item in items]
        losses = model.detection_losses(select(features, slice(len(items))), [size] * len(items), instances)
    terms = [supervised_term("loss_sem_seg", logits, target, ohem, coefficient, class_weights)]
    if (aux_head := model.aux_head) is not None:
        logits = aux_head(features, size, len(items))
        coefficient = coefficient * aux_head.loss_weight
        terms.append(supervised_term("loss_aux", logits, target, ohem, coefficient, class_weights))
    return terms, losses


def consistency_term(
    name: str, logits: Tensor, pseudo: PseudoLabels, threshold: float | Tensor, coefficient: float = 1.0
) -> LossTerm:
    """The cross entropy of confident pseudo-labels, times their weights, over the number of valid pixels.

    Args:
        name: key of the loss in the metrics.
        logits: (B, C, H, W) float, the student's.
        pseudo: the targets.
        threshold: least confidence of a pseudo-label that trains.
        coefficient: factor of the loss.
    """
    return LossTerm(
        name=name,
        logits=logits,
        target=pseudo.labels,
        pixel_loss=cross_entropy,
        mask=(pseudo.confidence >= threshold) & (pseudo.labels != IGNORE),
        norm=pseudo.valid,
        coefficient=coefficient,
        weight=pseudo.weight,
    )


def by_image(term: LossTerm, pseudo: PseudoLabels) -> LossTerm:
    """A term whose images count by the mean confidence of their valid pixels.

    Args:
        term: of pseudo-labels.
        pseudo: these.
    """
    pixels = pseudo.valid.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    mean = (pseudo.confidence * pseudo.valid).sum(dim=(1, 2), keepdim=True) / pixels
    return replace(term, mask=term.mask * mean)


def select(features: Mapping[str, Tensor], images: slice) -> dict[str, Tensor]:
    """The feature maps (B, ...) of some images of a batch, by name."""
    return {name: feature[images] for name, feature in features.items()}


def split(output: SemSegOutput, *sizes: int) -> list[SemSegOutput]:
    """The output for each of several consecutive groups of images, whose sizes are given."""
    parts = (field.split(sizes) for field in output if field is not None)
    return [SemSegOutput(*part) for part in zip(*parts, strict=True)]
