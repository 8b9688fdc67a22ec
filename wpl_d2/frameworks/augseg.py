"""AugSeg: an EMA teacher, strong views of random intensity, and patches of labeled images where the teacher doubts."""

from __future__ import annotations

import math
from typing import Any

import torch
from detectron2.config import configurable
from torch import Tensor

from ..data.augmentation import draw_injection, inject_and_mix, known_labels
from ..structures import PseudoLabels
from .base import FRAMEWORK_REGISTRY, Batch, Terms
from .check import check_views
from .entropy import entropy
from .parts import consistency_term, split
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
        """The arguments that `cfg` stands for.

        Raises:
            InputError: the data has another number of strong views than one.
        """
        check_views(cfg, 1)
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
        weight = 1.0 if self.weigher is None else self.weigher.neutral_maximum
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
