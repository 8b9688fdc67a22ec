"""UniMatch V2: a teacher's labels are learned on two strong views, each with the channels that the other one lacks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from detectron2.config import configurable
from torch import Tensor
from typing_extensions import override

from .base import FRAMEWORK_REGISTRY, Batch, Terms
from .loss_terms import consistency_term, split
from .mixing import CutMixBoxes, cutmix
from .pseudo_labels import predict
from .teacher_student import TeacherStudent


@FRAMEWORK_REGISTRY.register()
class UniMatchV2(TeacherStudent):
    """UniMatch V2 (Yang et al., TPAMI 2025): UniMatch with a teacher and without a stream of perturbed features.

    L = (Lx + alpha * (s1 + s2) / 2) / 2, s1 and s2 being as in `UniMatch`, but of feature maps of which half of the
    channels are dropped: in s2 those that s1 keeps. Half of the images, rounded down, keep all. Maps of one width,
    as those of a vision transformer, lose the same channels.

    Differences to the published code, in brackets: an image is mixed with another one of its batch, the previous one
    (the one opposite to it, so that of an odd number one is mixed with itself); the learning rate is that of its own
    step (of the step before); and with `DPTHead` logits are resized once, to the image's size (with another size than
    the patch divides, twice).

    With SOLVER.GRAD_ACCUMULATION the same is of each micro-batch as in `MeanTeacher`, and the number of images that
    keep all channels.

    Args:
        cutmix: draws the boxes in which strong views are mixed.
        framework: the arguments of `TeacherStudent`.
    """

    strong_views = 2
    mixes = True
    separate_forwards = True

    @configurable
    def __init__(self, *, cutmix: CutMixBoxes, **framework: Any) -> None:
        super().__init__(**framework)
        self.cutmix = cutmix

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        return super().from_config(cfg) | {"cutmix": CutMixBoxes(cfg)}

    def random_samples(self, views: Sequence[Tensor]) -> Samples:
        """A step's random choices, for the first and the second strong views (B, 3, H, W)."""
        widths = dict.fromkeys(shape.channels for shape in self.student.backbone.output_shape().values())
        kept = {width: complementary_channels(len(views[0]), width, self.device) for width in widths}
        return Samples(self.cutmix(views), kept)

    @override
    def terms(self, batch: Batch) -> Terms:
        labeled, mixed = self.images(batch["labeled"], "image"), []
        if items := self.unlabeled(batch):
            views = self.make_strong_views(items).unbind(1)
            samples = self.random_samples(views)
            pseudo = self.make_pseudo_labels(items, self.teacher_forward(items))
            mixed = [cutmix(view, pseudo, mask) for view, mask in zip(views, samples.boxes, strict=True)]
        _, features, output = predict(self.student, labeled)
        terms, losses = self.supervised_losses(batch["labeled"], features, output, coefficient=0.5)
        if not mixed:
            return terms, losses
        images = self.student.normalize(torch.cat([view for view, _ in mixed]))
        size = (images.shape[-2], images.shape[-1])
        output = self.student.decode(self.student.encode(images), size, partial(_drop, samples.channels))
        for own, (_, pseudo) in zip(split(output, *(len(view) for view, _ in mixed)), mixed, strict=True):
            self.stage_strong(own.embedding, pseudo)
            terms.append(consistency_term("loss_unsup", own.logits, pseudo, self.threshold, self.alpha / 4))
        return terms, losses


class Samples(NamedTuple):
    """The random samples of a step.

    Attributes:
        boxes: (B, H, W) bool for each of the two views, see `CutMixBoxes`.
        channels: see `complementary_channels`, by the number of channels.
    """

    boxes: list[Tensor]
    channels: dict[int, Tensor]


def complementary_channels(batch: int, channels: int, device: torch.device) -> Tensor:
    """Factors of the channels of two views of the same images: 0 or 2, of which one view has what the other has not.

    Half of the images, rounded down, have the factor 1 everywhere. All draws come from torch's global CPU generator.

    Args:
        batch: number of images, B.
        channels: of a feature map, D.
        device: of the factors.

    Returns:
        (2 B, D) float, those of the first view in front.
    """
    first = 2.0 * (torch.rand(batch, channels) < 0.5)
    first[torch.randperm(batch)[: batch // 2]] = 1.0
    return torch.cat([first, 2.0 - first]).to(device, non_blocking=True)


def _drop(channels: dict[int, Tensor], features: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: maps * channels[maps.shape[1]].to(maps.dtype)[:, :, None, None] for name, maps in features.items()}
