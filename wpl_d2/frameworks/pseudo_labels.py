"""How a model's prediction becomes the pseudo-labels that the student learns.

Training (`Framework.make_pseudo_labels`), judging and the preview share `make_pseudo_labels`: the refinement changes
labels, `PixelWeigher.weight` gives each pixel the product of the scores of WEIGHTING.KIND, and
`PixelWeigher.reliable` compares labels with boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..modeling import UnifiedSegDet
from ..structures import Detections, PseudoLabels, SemSegOutput
from ..weighting import Evidence, PixelWeigher, Refinement


class Prediction(NamedTuple):
    """A forward pass of a model over B images.

    Attributes:
        images: (B, 3, H, W) float, normalized.
        features: the backbone's feature maps (B, ...) by name.
        output: the segmentation head's.
    """

    images: Tensor
    features: dict[str, Tensor]
    output: SemSegOutput


def predict(model: UnifiedSegDet, images: Tensor) -> Prediction:
    """Segment normalized images (B, 3, H, W), in the mode that the model is in."""
    features = model.encode(images)
    return Prediction(images, features, model.decode(features, (images.shape[-2], images.shape[-1])))


def gather_evidence(
    model: UnifiedSegDet,
    prediction: Prediction,
    valid: Tensor | None = None,
    detections: Sequence[Detections] | None = None,
) -> Evidence:
    """The pseudo-labels of a prediction, and all that can tell how good they are.

    Args:
        model: that predicted.
        prediction: of unmixed images.
        valid: (B, H, W) bool, False in padding; None where there is none.
        detections: of each image, of any score; None without a detector.
    """
    logits, embedding, _ = prediction.output
    pseudo = PseudoLabels.from_logits(logits, valid)
    return Evidence(pseudo, logits, embedding, detections, prediction.images, partial(_segment, model))


def refined(evidence: Evidence, refinement: Refinement | None, weigher: PixelWeigher | None) -> Evidence:
    """The evidence with pseudo-labels as a refinement corrects them; for the arguments see `make_pseudo_labels`."""
    if refinement is None:
        return evidence
    return replace(evidence, pseudo=refinement(evidence, None if weigher is None else weigher.memory))


@torch.no_grad()
def make_pseudo_labels(evidence: Evidence, refinement: Refinement | None, weigher: PixelWeigher | None) -> PseudoLabels:
    """The pseudo-labels as the student learns them: refined, then with `weight` and `reliable` filled in.

    Args:
        evidence: with all that refinement and weigher need (see their `needs`).
        refinement: None leaves labels and confidence as they are.
        weigher: None leaves every weight at 1, and no pixel reliable.
    """
    return weighed(refined(evidence, refinement, weigher), weigher)


@torch.no_grad()
def weighed(evidence: Evidence, weigher: PixelWeigher | None) -> PseudoLabels:
    """The evidence's pseudo-labels as they are, with `weight` and `reliable` filled in; see `make_pseudo_labels`."""
    if weigher is None:
        return evidence.pseudo
    return evidence.pseudo.replace(weight=weigher.weight(evidence), reliable=weigher.reliable(evidence))


def build_refinement(cfg: Any) -> Refinement | None:
    """The refinement that PSEUDO_LABEL.REFINE names; None for "none"."""
    name = cfg.PSEUDO_LABEL.REFINE
    return None if name == "none" else Refinement(name, tuple(cfg.MODEL.DETECTOR.CLASSES), cfg.RPPI.BOX_SCORE)


def summarize(pseudo: PseudoLabels, threshold: float | Tensor) -> dict[str, Tensor]:
    """Scalars about pseudo-labels for the metrics: means over the valid pixels, and ratios of them.

    Args:
        pseudo: the labels.
        threshold: the least confidence that trains.
    """
    sums = {
        "pseudo/confidence": (pseudo.confidence * pseudo.valid).sum(),
        "pseudo/weight": (pseudo.weight * pseudo.valid).sum(),
        "pseudo/reliable": pseudo.reliable.sum(),
        "pseudo/selected": ((pseudo.confidence >= threshold) & pseudo.valid).sum(),
        "pseudo/weighted": ((pseudo.weight != 1) & pseudo.valid).sum(),
    }
    means = torch.stack(list(sums.values())) / pseudo.valid.sum().clamp(min=1)
    return dict(zip(sums, means.unbind(), strict=True))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within, the module is in evaluation mode, so that no BN statistics move; its own mode is put back."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _segment(model: UnifiedSegDet, images: Tensor) -> Tensor:
    """Logits of normalized images in evaluation mode."""
    with evaluation_mode(model):
        return predict(model, images).output.logits
