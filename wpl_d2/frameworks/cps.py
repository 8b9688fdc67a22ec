"""CPS: two students, each of which learns what the other one predicts."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import configurable
from torch import Tensor
from typing_extensions import override

from ..modeling import UnifiedSegDet, copy_model
from ..structures import LossTerm, PseudoLabels
from .base import FRAMEWORK_REGISTRY, Batch, Framework, Items, Terms
from .loss_terms import consistency_term
from .micro_batches import add_to
from .mixing import crossing_boxes, cutmix
from .pseudo_labels import predict


@FRAMEWORK_REGISTRY.register()
class CPS(Framework):
    """Cross pseudo supervision (Chen et al., CVPR 2021), with its CutMix.

    L = Ls1 + Ls2 + alpha * (Lu1 + Lu2), where Lu1 is the mean over the valid pixels of W2 * CE of the first student
    with the labels that the second one gives to the unmixed images, and Lu2 the same the other way round. Both students
    begin with the backbone of MODEL.WEIGHTS, and with random heads of their own. The first one is evaluated. Each has
    a memory bank of its own, since their embeddings have nothing in common; W2 are the weights by the second one's.

    Differences to the published code, in brackets: an image is mixed with another one of its batch (with one of a
    second loader); padding does not train (trains); and losses are not divided by the number of processes (are, before
    DDP averages them: BASE_LR of the presets is that much lower).

    With SOLVER.GRAD_ACCUMULATION the same is of each micro-batch as in `MeanTeacher`.

    Args:
        second: the second student, with its weigher.
        cutmix: `prob` and `area` of `crossing_boxes`.
        framework: the arguments of `Framework`.
    """

    strong_views = 1
    mixes = True
    separate_forwards = True

    @configurable
    def __init__(self, *, second: Framework, cutmix: dict[str, Any], **framework: Any) -> None:
        super().__init__(**framework)
        self.second = second
        self.cutmix = cutmix

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        mixing = cfg.FRAMEWORK.CUTMIX
        first, second = super().from_config(cfg), super().from_config(cfg)
        return first | {"second": Framework(**second), "cutmix": {"prob": mixing.PROB, "area": tuple(mixing.AREA)}}

    @property
    @override
    def students(self) -> list[UnifiedSegDet]:
        return [self.student, self.second.student]

    @override
    def reset(self) -> None:
        """Copy the first student's backbone to the second, as after loading its weights; heads stay different."""
        super().reset()
        copy_model(self.second.student.backbone, self.student.backbone)
        # What a head keeps itself is not learned, such as VLGHead's texts.
        heads = (model.sem_seg_head.buffers(recurse=False) for model in (self.second.student, self.student))
        for own, given in zip(*heads, strict=True):
            own.copy_(given)

    def random_samples(self, views: Tensor) -> Tensor:
        """A step's random choices: (B, H, W) bool, where views (B, 3, H, W) are mixed."""
        return crossing_boxes(len(views), views.shape[-2:], **self.cutmix, device=self.device)

    @override
    def terms(self, batch: Batch) -> Terms:
        self.second.class_weights = self.class_weights
        labeled, items = batch["labeled"], self.unlabeled(batch)
        mixed = self._mix(items) if items else None
        images = self.images(labeled, "image")
        terms, losses = [], dict[str, Tensor]()
        for learner in (self, self.second):
            _, features, output = predict(learner.student, images)
            supervised, others = learner.supervised_losses(labeled, features, output)
            terms += supervised
            add_to(losses, others)
        return terms + (self._cross_terms(*mixed) if mixed else []), losses

    def _cross_terms(self, images: Tensor, first: PseudoLabels, second: PseudoLabels) -> list[LossTerm]:
        """Each student's loss on mixed images (B, 3, H, W) with the labels of the other."""
        terms = []
        for learner, own, other in ((self, first, second), (self.second, second, first)):
            output = predict(learner.student, images).output
            learner.stage_strong(output.embedding, own)
            terms.append(consistency_term("loss_unsup", output.logits, other, self.threshold, self.alpha))
        return terms

    @torch.no_grad()
    def _mix(self, items: Items) -> tuple[Tensor, PseudoLabels, PseudoLabels]:
        """The mixed images, normalized, and the two students' labels for them; as published, in training mode."""
        views = self.make_strong_views(items)[:, 0]
        masks = self.random_samples(views)
        images = self.images(items, "image")
        first, second = (
            learner.make_pseudo_labels(items, predict(learner.student, images)) for learner in (self, self.second)
        )
        mixed, first = cutmix(views, first, masks)
        return self.student.normalize(mixed), first, cutmix(views, second, masks)[1]

    @torch.no_grad()
    @override
    def stage_held_out(self, items: Items, at_a_time: int) -> None:
        super().stage_held_out(items, at_a_time)
        self.second.stage_held_out(items, at_a_time)

    @torch.no_grad()
    @override
    def after_step(self) -> None:
        super().after_step()
        self.second.after_step()
