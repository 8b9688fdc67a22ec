"""AugSeg: strong views of random intensity, and patches of labeled images in views of which the teacher is unsure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import configurable
from torch import Tensor
from typing_extensions import override

from ..losses import entropy
from ..structures import IGNORE, PseudoLabels, SemSegOutput
from .base import FRAMEWORK_REGISTRY, Batch, Terms
from .loss_terms import consistency_term, split
from .mixing import box_masks, paste
from .pseudo_labels import predict
from .teacher_student import TeacherStudent


@FRAMEWORK_REGISTRY.register()
class AugSeg(TeacherStudent):
    """AugSeg (Zhao et al., CVPR 2023): strong views of `IntensityView`, mixed by `inject_and_mix`.

    L = Ls + alpha * Lu, where Lu is the mean of W * 1[confidence >= threshold] * CE over the valid pixels of the mixed
    views. The higher an image's score, the mean of (1 - entropy / ln C) * confidence over its valid pixels, the less
    often a patch is injected. Injected ground truth has the largest weight that a pseudo-label can have.

    Differences to the published code: padding and void injected pixels neither train nor count, neither in the mean of
    Lu nor in that of a score; the batches of labeled and unlabeled images may differ in size. Its ResNet-50 run on 92
    labels of VOC also sends the weak views through the student, which moves BN's statistics; that is not done here.

    With SOLVER.GRAD_ACCUMULATION these are of each micro-batch: what is so in `MeanTeacher`, the labeled images that
    patches come from, and the size of patches and boxes. Patches change the number of valid pixels, so that the mean of
    Lu is one of micro-batches' means, weighted by their valid pixels before the mixing.

    Args:
        injection: whether patches of labeled images are injected; if not, unlabeled images alone are mixed.
        framework: the arguments of `TeacherStudent`.
    """

    strong_views = 1

    @configurable
    def __init__(self, *, injection: bool, **framework: Any) -> None:
        super().__init__(**framework)
        self.injection = injection

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        return super().from_config(cfg) | {"injection": cfg.FRAMEWORK.AUGSEG.INJECTION}

    def random_samples(self, views: Tensor) -> InjectionSamples:
        """A step's random choices, for strong views (B, 3, H, W)."""
        return sample_injection(len(views), views.shape[-2:], self.device)

    @override
    def terms(self, batch: Batch) -> Terms:
        labeled, items = self.stack(batch["labeled"], "image"), self.unlabeled(batch)
        images, teacher_output = labeled, None
        if items:
            mixed, pseudo, teacher_output = self._mix(batch, labeled)
            images = torch.cat([labeled, mixed])
        _, features, output = predict(self.student, self.student.normalize(images))
        own, strong = split(output, len(labeled), len(items))
        terms, losses = self.supervised_losses(batch["labeled"], features, own, teacher_output=teacher_output)
        if items:
            self.stage_strong(strong.embedding, pseudo)
            terms.append(consistency_term("loss_unsup", strong.logits, pseudo, self.threshold, self.alpha))
        return terms, losses

    @torch.no_grad()
    def _mix(self, batch: Batch, labeled: Tensor) -> tuple[Tensor, PseudoLabels, SemSegOutput | None]:
        """The mixed strong views (B, C, H, W), not normalized, as `labeled`, and their labels.

        Behind them what `teacher_forwards` gives for the labeled images.
        """
        items = batch["unlabeled"]
        views = self.make_strong_views(items)[:, 0]
        samples = self.random_samples(views)
        prediction, teacher_output = self.teacher_forwards(items, batch["labeled"])
        pseudo = self.make_pseudo_labels(items, prediction)
        score = certainty(prediction.output.logits, pseudo) if self.injection else torch.ones_like(samples.chance)
        weight = 1.0 if self.weigher is None else self.weigher.max_weight
        known = known_labels(self.stack(batch["labeled"], "sem_seg"), weight)
        return *inject_and_mix(views, pseudo, score, labeled, known, samples), teacher_output


def certainty(logits: Tensor, pseudo: PseudoLabels) -> Tensor:
    """How certain the teacher is of whole images.

    Args:
        logits: (B, C, H, W) float, the teacher's.
        pseudo: the pseudo-labels made of them.

    Returns:
        (B,) float32 in [0, 1]: the mean over valid pixels of (1 - entropy / ln C) * confidence; 0 without any.
    """
    sure = (1 - entropy(logits) / math.log(logits.shape[1])) * pseudo.confidence
    count = pseudo.valid.sum(dim=(1, 2)).clamp(min=1)
    return (sure * pseudo.valid).sum(dim=(1, 2)) / count


PATCH_BETA = (8.0, 2.0)
BOX_BETA = (4.0, 4.0)
"""The published parameters of `beta_boxes` for patches of labeled images and boxes of unlabeled ones."""


class InjectionSamples(NamedTuple):
    """The random samples of `inject_and_mix`, on the images' device.

    Attributes:
        partner: (B,) int64, the image whose candidate is pasted into each; modulo L the labeled image that is injected
            into its own candidate.
        chance: (B,) float in [0, 1); a patch is injected where it is above the score.
        patches: (B, H, W) bool, where a labeled image is injected.
        boxes: (B, H, W) bool, where the partner's candidate is pasted.
    """

    partner: Tensor
    chance: Tensor
    patches: Tensor
    boxes: Tensor


def beta_boxes(
    batch: int, size: Sequence[int], beta: tuple[float, float], device: torch.device | str = "cpu"
) -> Tensor:
    """Draw one box for each image of a batch (AugSeg's recipe).

    The boxes of a batch have one size, the image's times sqrt(1 - s), s ~ Beta(*beta); their centers are uniform, but
    not in the first eighth of rows and columns. They are clipped at the borders. The generator is that of
    `draw_boxes`.

    Args:
        batch: number of images.
        size: (height, width) of the images.
        beta: the distribution's parameters.
        device: of the masks.

    Returns:
        (batch, H, W) bool, True inside the boxes.
    """
    height, width = size
    # Unchecked: validation would wait for the device.
    ratio = (1 - torch.distributions.Beta(*beta, validate_args=False).sample()).sqrt()
    centers = torch.rand(2, batch, 1)
    y, x = (side // 8 + ((side - side // 8) * center).long() for side, center in zip(size, centers, strict=True))
    half_h, half_w = (height * ratio).long() // 2, (width * ratio).long() // 2
    return box_masks(torch.stack([y - half_h, y + half_h, x - half_w, x + half_w]), size, device)


def sample_injection(batch: int, size: Sequence[int], device: torch.device | str = "cpu") -> InjectionSamples:
    """Draw the samples of one batch from torch's global CPU generator, without waiting for the device.

    Args:
        batch: number of unlabeled images.
        size: (height, width) of the images.
        device: of the samples.
    """
    partner, chance = torch.randperm(batch), torch.rand(batch)
    return InjectionSamples(
        partner=partner.to(device, non_blocking=True),
        chance=chance.to(device, non_blocking=True),
        patches=beta_boxes(batch, size, PATCH_BETA, device),
        boxes=beta_boxes(batch, size, BOX_BETA, device),
    )


def known_labels(target: Tensor, weight: float) -> PseudoLabels:
    """Ground truth in the form of pseudo-labels: of confidence 1, valid where there is a label, and never reliable.

    Reliable pixels enter the unlabeled bank, and labeled ones have a bank of their own.

    Args:
        target: (B, H, W) int64 class ids, `IGNORE` where there is none.
        weight: of every pixel.
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
    images: Tensor, pseudo: PseudoLabels, score: Tensor, labeled: Tensor, known: PseudoLabels, samples: InjectionSamples
) -> tuple[Tensor, PseudoLabels]:
    """AugSeg's adaptive label-injecting CutMix (Zhao et al., CVPR 2023, section 3.3), in two steps.

    First a patch of a labeled image is injected into copies of the images, the candidates, with probability
    1 - score; then a box of its partner's candidate is pasted into each image.

    Args:
        images: (B, 3, H, W), the strong views.
        pseudo: their pseudo-labels.
        score: (B,) float in [0, 1], see `certainty`.
        labeled: (L, 3, H, W), of the dtype of `images`; L may differ from B.
        known: their `known_labels`.
        samples: of `sample_injection`.

    Returns:
        The mixed images and their pseudo-labels.
    """
    donor = samples.partner % len(labeled)
    patches = samples.patches & (samples.chance > score)[:, None, None]
    candidates, labels = paste(images, pseudo, patches, labeled[donor], known.map(lambda field: field[donor]))
    partner = samples.partner
    return paste(images, pseudo, samples.boxes, candidates[partner], labels.map(lambda field: field[partner]))
