"""Mean teacher: an EMA teacher labels weak views, the student learns the labels on mixed strong views."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import configurable
from typing_extensions import override

from ..utils.errors import InputError
from .base import FRAMEWORK_REGISTRY, Batch, Terms
from .loss_terms import consistency_term, split
from .mixing import CutMixBoxes, cutmix
from .pseudo_labels import predict
from .teacher_student import TeacherStudent


@FRAMEWORK_REGISTRY.register()
class MeanTeacher(TeacherStudent):
    """The teacher-student scheme of the paper's section 3.1, eq. 1-4, with CutMix.

    L = Ls + alpha * Lu, where Lu is the mean of W * 1[confidence >= threshold] * CE over the valid pixels of the
    strong views. With several strong views of an image it is the mean over them.

    With FRAMEWORK.EMA_DECAY 0 the teacher is always the student of the step before, and this is FixMatch (Sohn et al.,
    NeurIPS 2020). Differences to the FixMatch of UniMatch's code, in brackets: pseudo-labels come from a forward in
    evaluation mode (from the forward that trains the labeled images), an image is mixed with another one of its batch
    (with a second view of itself), and the losses are summed (and halved: its steps are those of half of
    SOLVER.BASE_LR and twice SOLVER.WEIGHT_DECAY here).

    A step of SOLVER.GRAD_ACCUMULATION is one of the whole batch but for what is of each micro-batch: `Supervised`'s
    part, the images that CutMix mixes, the denominator of WEIGHTING.NORM weight_sum, and the draws of the pixels that
    enter the memory bank.

    Args:
        cutmix: draws the boxes in which strong views are mixed.
        framework: the arguments of `TeacherStudent`.
    """

    mixes = True

    @configurable
    def __init__(self, *, cutmix: CutMixBoxes, **framework: Any) -> None:
        super().__init__(**framework)
        self.random_samples = cutmix

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        return super().from_config(cfg) | {"cutmix": CutMixBoxes(cfg)}

    @classmethod
    @override
    def check_config(cls, cfg: Any) -> None:
        super().check_config(cfg)
        if cfg.INPUT.STRONG.VIEWS < 1:
            raise InputError("INPUT.STRONG.VIEWS: 0, but MeanTeacher learns from strong views; set it to 1")

    @override
    def terms(self, batch: Batch) -> Terms:
        labeled, mixed, teacher_output = self.stack(batch["labeled"], "image"), [], None
        if items := self.unlabeled(batch):
            views = self.make_strong_views(items).unbind(1)
            masks = self.random_samples(views)
            prediction, teacher_output = self.teacher_forwards(items, batch["labeled"])
            pseudo = self.make_pseudo_labels(items, prediction)
            mixed = [cutmix(view, pseudo, mask) for view, mask in zip(views, masks, strict=True)]
        images = self.student.normalize(torch.cat([labeled, *(view for view, _ in mixed)]))
        _, features, output = predict(self.student, images)
        own, *strong = split(output, len(labeled), *(len(view) for view, _ in mixed))
        terms, losses = self.supervised_losses(batch["labeled"], features, own, teacher_output=teacher_output)
        for output, (_, pseudo) in zip(strong, mixed, strict=True):
            self.stage_strong(output.embedding, pseudo)
            coefficient = self.alpha / len(mixed)
            terms.append(consistency_term("loss_unsup", output.logits, pseudo, self.threshold, coefficient))
        return terms, losses
