"""Mean teacher: an EMA teacher labels weak views, the student learns them on mixed strong views."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import configurable

from ..utils.errors import InputError
from .base import FRAMEWORK_REGISTRY, Batch, Terms
from .loss_terms import consistency_term, split
from .mixing import CutMixBoxes, cutmix
from .teacher_student import TeacherStudent


@FRAMEWORK_REGISTRY.register()
class MeanTeacher(TeacherStudent):
    """The teacher-student scheme of the paper's section 3.1, eq. 1-4, with CutMix.

    L = Ls + alpha * Lu, where Lu is the mean of W * 1[confidence >= threshold] * CE over the valid pixels of the
    strong views. With several strong views of an image it is the mean over them.

    With FRAMEWORK.EMA_DECAY 0 the teacher is a copy of the student as the last step left it, at every step, and this is
    FixMatch (Sohn et al., NeurIPS 2020). Differences to that of UniMatch's code, in brackets: labels are made in
    evaluation mode (in the forward that trains the labeled images), an image is mixed with another one of its batch
    (with a second view of itself), and the losses are added up (and halved: its steps are those of half of
    SOLVER.BASE_LR and twice SOLVER.WEIGHT_DECAY here).
    """

    mixes = True

    @configurable
    def __init__(self, *, cutmix: CutMixBoxes, **framework: Any) -> None:
        """Put the framework together.

        Args:
            cutmix: draws where strong views are mixed.
            framework: the arguments of `TeacherStudent`.
        """
        super().__init__(**framework)
        self.cutmix_boxes = cutmix

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """See `Framework.from_config`."""
        return super().from_config(cfg) | {"cutmix": CutMixBoxes(cfg)}

    @classmethod
    def check_config(cls, cfg: Any) -> None:
        """See `Framework.check_config`."""
        super().check_config(cfg)
        if cfg.INPUT.STRONG.VIEWS < 1:
            raise InputError("INPUT.STRONG.VIEWS: 0, but MeanTeacher learns from strong views; set it to 1")

    def terms(self, batch: Batch) -> Terms:
        """The teacher's labels, then one student forward over the labeled images and all strong views."""
        labeled, mixed = self.stack(batch["labeled"], "image"), []
        if items := self.unlabeled(batch):
            views = self.stack(items, "strong").unbind(1)
            masks = [self.cutmix_boxes(view) for view in views]
            labels = self.label(batch)
            mixed = [cutmix(view, labels, mask) for view, mask in zip(views, masks, strict=True)]
        images = self.student.normalize(torch.cat([labeled, *(view for view, _ in mixed)]))
        features = self.student.encode(images)
        output = self.student.decode(features, images.shape[-2:])
        count = len(labeled)
        own, *strong = split(output, count, *(len(view) for view, _ in mixed))
        terms, losses = self.supervised(batch["labeled"], features, own)
        for output, (_, pseudo) in zip(strong, mixed, strict=True):
            self.stage_strong(output.embedding, pseudo)
            share = self.alpha / len(mixed)
            terms.append(consistency_term("loss_unsup", output.logits, pseudo, self.threshold, share))
        return terms, losses
