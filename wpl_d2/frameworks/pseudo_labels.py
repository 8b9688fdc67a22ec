"""From what a labeler says of images to the pseudo-labels that the student learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from ..modeling import UnifiedSegDet
from ..structures import Detections, PseudoLabels, SemSegOutput
from ..utils.errors import check_name
from ..weighting import Evidence, PixelWeigher, Refinement
from ..weighting.refinement import REFINEMENTS


def make_evidence(
    model: UnifiedSegDet,
    pseudo: PseudoLabels,
    output: SemSegOutput,
    detections: Sequence[Detections] | None = None,
    images: Tensor | None = None,
) -> Evidence:
    """What the weigher is told of pseudo-labels.

    Args:
        model: who labeled.
        pseudo: its labels.
        output: what its head made of the images.
        detections: of each image, of any score; None without a detector.
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
