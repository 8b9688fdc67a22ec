"""PCR: a linear classifier and one by prototypes shall agree with a teacher's labels."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch
from detectron2.config import configurable
from torch import Tensor
from typing_extensions import override

from ...structures import IGNORE, LossTerm, PseudoLabels
from ..base import FRAMEWORK_REGISTRY, Batch, Terms
from ..loss_terms import consistency_term, split, supervised_term
from ..mixing import cutmix, half_boxes
from ..random_samples import uniform
from ..teacher_student import TeacherStudent
from ..validation import check_merging_head
from .prototypes import PrototypeClassifier

_log = logging.getLogger(__name__)


@FRAMEWORK_REGISTRY.register()
class PCR(TeacherStudent):
    """PCR (Xu et al., NeurIPS 2022): a reconstruction from its abstract and a list of its settings.

    L = Ls + beta * Lp + alpha * (Lu + beta * Lup). Ls and Lp are the cross entropies of labeled images by the linear
    classifier and by the nearest of several prototypes (`PrototypeClassifier`) of the same feature, the decoder's
    concatenation of the skip and ASPP. Lu and Lup are the means of W * 1[confidence >= threshold] * CE of the two on
    CutMixed views with the teacher's labels. As stated: both classifiers shall be consistent, with CutMix; cosines over
    a temperature of 0.1; prototypes are clustered after a supervised epoch, and then move with a momentum of 0.99 to
    the mean of the features that are assigned to them, of which one is drawn from each cell of a grid. All else is
    chosen here:

    - the teacher's linear classifier labels the views for both of the student's;
    - "linear" is all that follows the concatenation: the fuse convolutions and the last 1x1;
    - the logits of prototypes are resized to the image, not the features;
    - clusters are those of spherical k-means, of the labeled pixels that the supervised steps saw last, at most
      FRAMEWORK.PCR.BANK_SIZE of a class, and begin with the one nearest to its mean, then each time the one farthest
      from those before; with FRAMEWORK.BURN_IN 0 they are those of the first step, which the prototypes do not train
      yet;
    - prototypes move by the student's features of labeled pixels and of confident pixels of the mixed views, of their
      class and pseudo-class;
    - the hard pixels of FRAMEWORK.OHEM are each classifier's own; and the teacher averages BN's statistics too.

    With SOLVER.GRAD_ACCUMULATION the same is of each micro-batch as in `MeanTeacher`, and the draw whether to mix.

    Args:
        prototypes: the second classifier.
        prototype_weight: beta.
        momentum: of the prototypes.
        cutmix_prob: probability that a batch is mixed.
        framework: the arguments of `TeacherStudent`.
    """

    strong_views = 1
    mixes = True

    @configurable
    def __init__(
        self,
        *,
        prototypes: PrototypeClassifier,
        prototype_weight: float,
        momentum: float,
        cutmix_prob: float,
        **framework: Any,
    ) -> None:
        super().__init__(**framework)
        self.prototypes = prototypes
        self.prototype_weight = prototype_weight
        self.momentum = momentum
        self.cutmix_prob = cutmix_prob
        _log.info("PCR is a reconstruction from its abstract: see wpl_d2.frameworks.PCR for what is chosen")

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        keys, framework = cfg.FRAMEWORK.PCR, super().from_config(cfg)
        return framework | {
            "prototypes": PrototypeClassifier(cfg, framework["student"].sem_seg_head.merged_channels),
            "prototype_weight": keys.PROTOTYPE_WEIGHT,
            "momentum": keys.MOMENTUM,
            "cutmix_prob": cfg.FRAMEWORK.CUTMIX.PROB,
        }

    @classmethod
    @override
    def check_config(cls, cfg: Any) -> None:
        super().check_config(cfg)
        check_merging_head(cfg)

    @property
    def clustered(self) -> bool:
        """Whether the prototypes are known in the current step."""
        return self.iteration >= self._first_steps

    @property
    def _first_steps(self) -> int:
        return max(1, self.burn_in)

    def random_samples(self, labeled: Tensor, views: Tensor) -> Samples:
        """A step's random choices for labeled images (B, 3, H, W) and strong views (B', 3, H, W)."""
        boxes = half_boxes(len(views), views.shape[-2:], self.cutmix_prob, self.device)
        grid = self.prototypes.grid
        return Samples(boxes, uniform(len(labeled) + len(views), 2, grid, grid, device=self.device))

    @override
    def terms(self, batch: Batch) -> Terms:
        labeled, items = self.stack(batch["labeled"], "image"), self.unlabeled(batch)
        count, images, pseudo, teacher_output = len(labeled), labeled, None, None
        views = self.make_strong_views(items)[:, 0] if items else labeled[:0]
        samples = self.random_samples(labeled, views)
        if items:
            prediction, teacher_output = self.teacher_forwards(items, batch["labeled"])
            views, pseudo = cutmix(views, self.make_pseudo_labels(items, prediction), samples.boxes)
            images = torch.cat([labeled, views])
        head: Any = self.student.sem_seg_head
        features = self.student.encode(self.student.normalize(images))
        merged = head.merge(features)
        own, strong = split(head.classify(merged, images.shape[-2:]), count, len(views))
        # First, since the weigher draws too.
        target = self.stack(batch["labeled"], "sem_seg")
        by_prototypes = self._labeled_by_prototypes(merged[:count], target, samples.cells[:count])
        terms, losses = self.supervised_losses(batch["labeled"], features, own, teacher_output=teacher_output)
        terms += by_prototypes
        if pseudo is not None:
            self.stage_strong(strong.embedding, pseudo)
            terms.append(consistency_term("loss_unsup", strong.logits, pseudo, self.threshold, self.alpha))
            terms += self._mixed_by_prototypes(merged[count:], pseudo, samples.cells[count:])
        return terms, losses

    def _labeled_by_prototypes(self, merged: Tensor, target: Tensor, cells: Tensor) -> list[LossTerm]:
        if not self.clustered:
            self.prototypes.stage_for_bank(merged, target)
            return []
        self.prototypes.stage(merged, target, cells)
        logits, factor = self.prototypes(merged, target.shape[-2:]), self.prototype_weight
        return [supervised_term("loss_prototypes", logits, target, self.ohem, factor, self.class_weights)]

    def _mixed_by_prototypes(self, merged: Tensor, pseudo: PseudoLabels, cells: Tensor) -> list[LossTerm]:
        if not self.clustered:
            return []
        self.prototypes.stage(merged, pseudo.labels.masked_fill(pseudo.confidence < self.threshold, IGNORE), cells)
        logits, factor = self.prototypes(merged, pseudo.labels.shape[-2:]), self.alpha * self.prototype_weight
        return [consistency_term("loss_unsup", logits, pseudo, self.threshold, factor)]

    @torch.no_grad()
    @override
    def after_step(self) -> None:
        super().after_step()
        if self.clustered:
            self.prototypes.follow(self.momentum)
            return
        self.prototypes.store()
        if self.iteration == self._first_steps - 1:
            self.prototypes.cluster()


class Samples(NamedTuple):
    """The random samples of a step.

    Attributes:
        boxes: (B, H, W) bool, where strong views are mixed.
        cells: (B', 2, grid, grid) float, see `PrototypeClassifier.stage`; labeled images in front of strong views.
    """

    boxes: Tensor
    cells: Tensor
