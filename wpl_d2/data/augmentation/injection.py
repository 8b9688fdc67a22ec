"""CutMix that lends patches of labeled images to the images that the labeler is least sure of (AugSeg's recipe)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...structures import IGNORE, PseudoLabels
from .mixing import beta_boxes, paste

PATCH_BETA = (8.0, 2.0)
BOX_BETA = (4.0, 4.0)
"""What `beta_boxes` draws patches of labeled images and boxes of unlabeled ones with, as published."""


class InjectionDraws(NamedTuple):
    """All that is random in `inject_and_mix`, on the images' device.

    Attributes:
        partner: (B,) int64, whose box an image takes, and whose labeled image its own candidate may take a patch of.
        chance: (B,) float in [0, 1); above its score, a candidate gets the patch.
        patches: (B, H, W) bool, where the candidates show a labeled image, if at all.
        boxes: (B, H, W) bool, where the images show their partner's candidate.
    """

    partner: Tensor
    chance: Tensor
    patches: Tensor
    boxes: Tensor


def draw_injection(batch: int, size: Sequence[int], device: torch.device | str = "cpu") -> InjectionDraws:
    """Draw for one batch, from torch's global CPU generator, waiting for no device.

    Args:
        batch: number of unlabeled images.
        size: (height, width) of the images.
        device: where the draws shall be.
    """
    partner, chance = torch.randperm(batch), torch.rand(batch)
    return InjectionDraws(
        partner=partner.to(device, non_blocking=True),
        chance=chance.to(device, non_blocking=True),
        patches=beta_boxes(batch, size, PATCH_BETA, device),
        boxes=beta_boxes(batch, size, BOX_BETA, device),
    )


def known_labels(target: Tensor, weight: float) -> PseudoLabels:
    """Ground truth in the form of pseudo-labels: certain, valid where there is a label, and never reliable.

    A detector has not confirmed it, and labeled pixels have a bank of their own.

    Args:
        target: (B, H, W) int64 class ids, `IGNORE` where there is none.
        weight: of all pixels.
    """
    confidence = torch.ones(target.shape, device=target.device)
    return PseudoLabels(
        labels=target,
        confidence=confidence,
        valid=target != IGNORE,
        reliable=torch.zeros_like(target, dtype=torch.bool),
        weight=confidence * weight,
    )


def inject_and_mix(
    images: Tensor, pseudo: PseudoLabels, score: Tensor, labeled: Tensor, known: PseudoLabels, draws: InjectionDraws
) -> tuple[Tensor, PseudoLabels]:
    """AugSeg's adaptive label-injecting CutMix (Zhao et al., CVPR 2023, section 3.3), in two steps.

    Candidates are copies of the images, into which, with probability 1 - score, a patch of a labeled image is pasted;
    then each image gets a box of its partner's candidate.

    Args:
        images: (B, 3, H, W), the strong views.
        pseudo: their pseudo-labels.
        score: (B,) float in [0, 1], how sure the labeler is of each image.
        labeled: (L, 3, H, W), of the dtype of `images`; L may differ from B.
        known: their `known_labels`.
        draws: of `draw_injection`.

    Returns:
        The mixed images and their pseudo-labels.
    """
    donor = draws.partner % len(labeled)
    patches = draws.patches & (draws.chance > score)[:, None, None]
    candidates, labels = paste(images, pseudo, patches, labeled[donor], known.map(lambda field: field[donor]))
    partner = draws.partner
    return paste(images, pseudo, draws.boxes, candidates[partner], labels.map(lambda field: field[partner]))
