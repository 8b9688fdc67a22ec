"""What frameworks share: their kinds of loss terms, and slices of what a model made of several kinds of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from ..errors import check_name
from ..losses import cross_entropy, ohem_mask
from ..modeling import UnifiedSegDet
from ..structures import IGNORE, LossTerm, PseudoLabels, SemSegOutput
from ..weighting import Evidence, PixelWeigher, Refinement
from ..weighting.refinement import REFINEMENTS


def supervised_term(
    name: str, logits: Tensor, target: Tensor, ohem: Mapping[str, Any] | None = None, coefficient: float = 1.0
) -> LossTerm:
    """The mean cross entropy of labeled pixels.

    Args:
        name: key of the loss in the metrics.
        logits: (B, C, H, W) float.
        target: (B, H, W) int64 class ids, `IGNORE` where there is none.
        ohem: `threshold` and `min_kept` of `ohem_mask`, to which the mean is restricted; None: all labeled pixels.
        coefficient: factor of the loss.
    """
    kept = target != IGNORE if ohem is None else ohem_mask(logits.detach(), target, **ohem)
    return LossTerm(name, logits, target, cross_entropy, mask=kept, norm=kept, coefficient=coefficient)


def consistency_term(
    name: str, logits: Tensor, pseudo: PseudoLabels, threshold: float, coefficient: float = 1.0
) -> LossTerm:
    """The cross entropy of confident pseudo-labels, times their weights, over the number of valid pixels.

    Args:
        name: key of the loss in the metrics.
        logits: (B, C, H, W) float, the student's.
        pseudo: what it shall learn there.
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


def select(features: Mapping[str, Tensor], images: slice) -> dict[str, Tensor]:
    """The feature maps (B, ...) of some images of a batch, by name."""
    return {name: feature[images] for name, feature in features.items()}


def split(output: SemSegOutput, *sizes: int) -> list[SemSegOutput]:
    """What belongs to each of several kinds of images; `sizes` are their numbers, in the order of the batch."""
    parts = (field.split(sizes) for field in output if field is not None)
    return [SemSegOutput(*part) for part in zip(*parts, strict=True)]


def make_evidence(
    model: UnifiedSegDet,
    pseudo: PseudoLabels,
    output: SemSegOutput,
    detections: Sequence[Any] | None = None,
    images: Tensor | None = None,
) -> Evidence:
    """What the weigher is told of pseudo-labels.

    Args:
        model: who labeled.
        pseudo: its labels.
        output: what its head made of the images.
        detections: all boxes of the images, one `Instances` each; None without a detector.
        images: (B, 3, H, W), normalized; None where no score asks for a forward.
    """
    return Evidence(pseudo, output.logits, output.embedding, detections, images, partial(_segment, model))


def build_refinement(cfg: Any) -> Refinement | None:
    """What PSEUDO_LABEL.REFINE names; None where it names nothing.

    Raises:
        InputError: an unknown name.
    """
    name = check_name("PSEUDO_LABEL.REFINE", cfg.PSEUDO_LABEL.REFINE, ("none", *REFINEMENTS))
    return None if name == "none" else Refinement(name, tuple(cfg.MODEL.DETECTOR.CLASSES), cfg.RPPI.BOX_SCORE)


def fill_in(evidence: Evidence, refinement: Refinement | None, weigher: PixelWeigher | None) -> PseudoLabels:
    """Pseudo-labels as the student learns them: mended, then weighed and, if RPPI is on, found reliable or not.

    Args:
        evidence: what is known about them, with all that the two need.
        refinement: None leaves the labels as they are.
        weigher: None leaves every weight at 1.
    """
    if refinement is not None:
        memory = None if weigher is None else weigher.memory
        evidence = replace(evidence, pseudo=refinement(evidence, memory))
    return evidence.pseudo if weigher is None else weigher.resolve(evidence)


def _segment(model: UnifiedSegDet, images: Tensor) -> Tensor:
    """Logits of normalized images, in evaluation mode, so that no BN statistics move; the mode is put back."""
    training = model.training
    model.eval()
    logits = model.decode(model.encode(images), (images.shape[-2], images.shape[-1])).logits
    model.train(training)
    return logits
