"""AugSeg: an EMA teacher, strong views of random intensity, and patches of labeled images where the teacher doubts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import configurable
from torch import Tensor

from ..structures import IGNORE, PseudoLabels
from .base import FRAMEWORK_REGISTRY, Batch, Terms
from .entropy import entropy
from .loss_terms import consistency_term, split
from .mixing import beta_boxes, paste
from .teacher_student import TeacherStudent


@FRAMEWORK_REGISTRY.register()
class AugSeg(TeacherStudent):
    """AugSeg (Zhao et al., CVPR 2023): strong views of `IntensityView`, mixed by `inject_and_mix`.

    L = Ls + alpha * Lu, where Lu is the mean of W * 1[confidence >= threshold] * CE over the valid pixels of the mixed
    views. An image's score, by which it is spared from injected patches, is the mean over its valid pixels of
    (1 - entropy / ln C) * confidence. Injected ground truth weighs as much as a pseudo-label can.

    Differences to the published code: padding neither trains nor counts, in the mean of Lu, of a score, and where an
    injected patch is void; the batches of labeled and unlabeled images may differ in size. Its ResNet-50 run on 92
    labels of VOC also sends the weak views through the student, for the sake of BN's statistics; that is not done here.
    """

    strong_views = 1

    @configurable
    def __init__(self, *, injection: bool, **framework: Any) -> None:
        """Put the framework together.

        Args:
            injection: whether patches of labeled images are pasted; if not, unlabeled images alone are mixed.
            framework: the arguments of `TeacherStudent`.
        """
        super().__init__(**framework)
        self.injection = injection

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """See `Framework.from_config`."""
        return super().from_config(cfg) | {"injection": cfg.FRAMEWORK.AUGSEG.INJECTION}

    def terms(self, batch: Batch) -> Terms:
        """The teacher's labels, then one student forward over the labeled images and the mixed strong views."""
        labeled, items = self.stack(batch["labeled"], "image"), self.unlabeled(batch)
        images = labeled
        if items:
            mixed, pseudo = self._mix(batch, labeled)
            images = torch.cat([labeled, mixed])
        features = self.student.encode(self.student.normalize(images))
        output = self.student.decode(features, images.shape[-2:])
        own, strong = split(output, len(labeled), len(items))
        terms, losses = self.supervised(batch["labeled"], features, own)
        if items:
            self.stage_strong(strong.embedding, pseudo)
            terms.append(consistency_term("loss_unsup", strong.logits, pseudo, self.threshold, self.alpha))
        return terms, losses

    @torch.no_grad()
    def _mix(self, batch: Batch, labeled: Tensor) -> tuple[Tensor, PseudoLabels]:
        """The mixed strong views (B, 3, H, W) uint8, not normalized, as `labeled`, and their labels."""
        items = batch["unlabeled"]
        views = self.stack(items, "strong")[:, 0]
        # Drawn before the weigher draws anything, so that a weighted training mixes as its plain twin.
        draws = draw_injection(len(views), (views.shape[-2], views.shape[-1]), self.device)
        features, output = self.look(items)
        pseudo = self.resolve(items, features, output)
        score = certainty(output.logits, pseudo) if self.injection else torch.ones_like(draws.chance)
        weight = 1.0 if self.weigher is None else self.weigher.max_weight
        known = known_labels(self.stack(batch["labeled"], "sem_seg"), weight)
        return inject_and_mix(views, pseudo, score, labeled, known, draws)


def certainty(logits: Tensor, pseudo: PseudoLabels) -> Tensor:
    """How sure the labeler is of whole images.

    Args:
        logits: (B, C, H, W) float.
        pseudo: the labels that came of them.

    Returns:
        (B,) float32 in [0, 1]: the mean over valid pixels of (1 - entropy / ln C) * confidence; 0 without any.
    """
    sure = (1 - entropy(logits) / math.log(logits.shape[1])) * pseudo.confidence
    count = pseudo.valid.sum(dim=(1, 2)).clamp(min=1)
    return (sure * pseudo.valid).sum(dim=(1, 2)) / count


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
