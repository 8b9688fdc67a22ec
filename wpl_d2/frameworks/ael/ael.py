"""AEL: copy-paste, CutMix and sampling of pixels favour the classes that the student is least confident in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import configurable
from torch import Tensor, nn
from typing_extensions import override

from ...data.datasets.folder import image_records
from ...losses import cross_entropy
from ...structures import IGNORE, LossTerm, PseudoLabels
from ...utils.cpu_speed import best_class
from ...utils.errors import InputError
from ..base import FRAMEWORK_REGISTRY, Batch, Items, Terms
from ..mixing import half_boxes, paste
from ..pseudo_labels import predict
from ..random_samples import uniform
from ..teacher_student import TeacherStudent
from .class_banks import ConfidenceBank, PresenceBank, sample_classes
from .copy_paste import copy_paste, sample_component_boxes
from .partner_queue import PartnerQueue


class AELSamples(NamedTuple):
    """A step's random samples, but for those of `AEL._sample_pixels`; all but the boxes are uniform in [0, 1).

    Attributes:
        pasted: (FRAMEWORK.AEL.PASTE_CLASSES,) float, for the classes to paste.
        components: (B,) float, for the connected components to mix in.
        boxes: (B, H, W) bool, half of the image each, for images without such a component.
        partners: (2, P) float, for the classes of the next partners, and for images that show them.
    """

    pasted: Tensor
    components: Tensor
    boxes: Tensor
    partners: Tensor


@FRAMEWORK_REGISTRY.register()
class AEL(TeacherStudent):
    """AEL (Hu et al., NeurIPS 2021): adaptive equalization learning, by the student's confidence c in each class.

    L = Ls + Lcons(labeled) + alpha * Lcons(unlabeled), where Ls is the cross entropy with OHEM and an auxiliary head,
    and for the teacher's labels of confidence p

        Lcons = sum(W * p^2 * m * 1[p >= threshold] * CE) / sum(p^2 * m).

    - Adaptive equalization sampling: m keeps a pixel for which the student predicts class k with the probability
      (1 - c_k) / max(1 - c).
    - Adaptive copy-paste: into labeled images, pixels of classes sampled from softmax(sqrt(1 - c)) are pasted from a
      second labeled image.
    - Adaptive CutMix: each unlabeled image is mixed with a partner, which shows a class sampled from softmax(1 - c), in
      the box around one of the class's connected components, or in half of the image if there is none.

    W is 1 on labeled images; with WEIGHTING.NORM weight_sum, as in the presets, it is in the denominator too. The
    teacher is always in training mode, with BN statistics of its own.

    Differences to the published code, in brackets. A class that a batch lacks keeps its c (is moved towards 0); c is
    shared by all processes (each has its own) and begins at 0 (at random); a key excludes classes from copy-paste, on
    VOC the background (Cityscapes' ids there too, and so also aeroplane, bicycle, cat and cow); padding is at the right
    and the bottom (on all sides) and never trains (is background); resized images (INPUT.RESIZE bilinear) are rounded
    to whole numbers. Each unlabeled image of a process has a partner: the presets load one a process (it loads two and
    drops one). c is one step old and the choice of partners two; the first images of a run are mixed with others of
    their batch. Connected components are found in a limited number of sweeps (`connected_components`). Half of an image
    is as wide as in U2PL, uniform in [W / 2, W] (as high as H * 0.5^U(0, 1)). Losses are averaged over processes once:
    the published code divides them by the number of processes, and DDP averages them again. Its steps on 8 GPUs are
    those of SOLVER.BASE_LR 0.00125 SOLVER.WEIGHT_DECAY 0.0008 here.

    With SOLVER.GRAD_ACCUMULATION these are of each micro-batch: what is so in `MeanTeacher`, the teacher's BN
    statistics, the classes to paste, and sum(p^2 * m). The confidence c, the images that show a class, and the choice
    of partners are of the whole step.

    Args:
        confidence: the student's confidence in each class.
        presence: which unlabeled images show each class.
        queue: the chosen partners.
        paste_classes: number of classes sampled for a step's copy-paste, with replacement.
        head_classes: ids of the classes that are never pasted.
        component_area: a component must cover more than this ratio of an image to be mixed in.
        framework: the arguments of `TeacherStudent`.
    """

    teacher_trains = True
    strong_views = 0
    pastes = True
    excluded: Tensor

    separate_forwards = True

    @configurable
    def __init__(
        self,
        *,
        confidence: ConfidenceBank,
        presence: PresenceBank,
        queue: PartnerQueue,
        paste_classes: int,
        head_classes: Sequence[int],
        component_area: float,
        **framework: Any,
    ) -> None:
        super().__init__(**framework)
        self.confidence = confidence
        self.presence = presence
        self.queue = queue
        self.paste_classes = paste_classes
        self.component_area = component_area
        excluded = torch.zeros(len(confidence.confidence), dtype=torch.bool)
        excluded[list(head_classes)] = True
        self.register_buffer("excluded", excluded, persistent=False)

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        keys, classes = cfg.FRAMEWORK.AEL, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        images = sum(len(image_records(name)) for name in cfg.DATASETS.UNLABELED)
        return super().from_config(cfg) | {
            "confidence": ConfidenceBank(classes, keys.MOMENTUM),
            "presence": PresenceBank(images, classes, keys.PRESENCE_AREA),
            "queue": PartnerQueue(cfg.SOLVER.UNLABELED_IMS_PER_BATCH),
            "paste_classes": keys.PASTE_CLASSES,
            "head_classes": keys.HEAD_CLASSES,
            "component_area": keys.COMPONENT_AREA,
        }

    @classmethod
    @override
    def check_config(cls, cfg: Any) -> None:
        super().check_config(cfg)
        head, classes = cfg.FRAMEWORK.AEL.HEAD_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        if not set(head) < set(range(classes)):
            raise InputError(
                f"FRAMEWORK.AEL.HEAD_CLASSES: {tuple(head)}, but the {classes} classes have the ids 0 to "
                f"{classes - 1}; name some of these, not all"
            )

    @override
    def train(self, mode: bool = True) -> AEL:
        nn.Module.train(self, mode)
        return self

    def random_samples(self, batch: int, size: Sequence[int]) -> AELSamples:
        """A step's random choices, for a number of unlabeled images of size (H, W)."""
        return AELSamples(
            pasted=uniform(self.paste_classes, device=self.device),
            components=uniform(batch, device=self.device),
            boxes=half_boxes(batch, size, 1.0, self.device),
            partners=uniform(2, self.queue.count, device=self.device),
        )

    @override
    def terms(self, batch: Batch) -> Terms:
        items = self.unlabeled(batch)
        samples = self.random_samples(len(items), batch["labeled"][0]["image"].shape[-2:])
        labeled = self._paste(batch["labeled"], samples)
        images, features, output = predict(self.student, self.images(labeled, "image"))
        self.confidence.stage(output.logits, self.stack(labeled, "sem_seg"))
        if not items:
            return self.supervised_losses(labeled, features, output)
        with torch.no_grad():
            teacher_output = predict(self.teacher, images).output
        terms, losses = self.supervised_losses(labeled, features, output, teacher_output=teacher_output)
        known = PseudoLabels.from_logits(teacher_output.logits, self.stack(labeled, "valid"))
        terms.append(self._consistency("loss_consistency", output.logits, known))
        mixed, pseudo = self._mix(items, batch["partners"], samples)
        strong = predict(self.student, self.student.normalize(mixed)).output
        self.stage_strong(strong.embedding, pseudo)
        terms.append(self._consistency("loss_unsup", strong.logits, pseudo, self.alpha, pseudo.weight))
        self._choose_partners(samples)
        return terms, losses

    @torch.no_grad()
    @override
    def after_step(self) -> None:
        super().after_step()
        self.confidence.after_step()
        self.presence.after_step()
        self.queue.after_step()

    @override
    def partner_indices(self) -> list[list[int]]:
        return self.queue.upcoming()

    @override
    def ineffective_parts(self) -> list[str]:
        if self.presence.present.any():
            return []
        area = self.presence.min_area
        return [
            f"FRAMEWORK.AEL.PRESENCE_AREA: no unlabeled image's last view showed a class on {area:g} of it: the images "
            "to mix with were not chosen by their classes"
        ]

    @torch.no_grad()
    def _paste(self, items: Items, samples: AELSamples) -> Items:
        logits = self.confidence.uncertainty.sqrt().masked_fill(self.excluded, -torch.inf)
        classes = sample_classes(logits, samples.pasted)
        pasted = torch.zeros(IGNORE + 1, dtype=torch.bool, device=self.device).index_fill_(0, classes, True)
        detector = self.student.detector
        return [copy_paste(item, pasted, None if detector is None else detector.object_classes) for item in items]

    @torch.no_grad()
    def _mix(self, items: Items, partners: Items, samples: AELSamples) -> tuple[Tensor, PseudoLabels]:
        """The unlabeled images (B, C, H, W), a box of its partner pasted into each, and their pseudo-labels."""
        both, count = [*items, *partners], len(items)
        views, pseudo = self.stack(both, "image"), self.make_pseudo_labels(both, self.teacher_forward(both))
        if len(self.presence.present):
            self.presence.stage([item["index"] for item in both], pseudo.labels)
        own = pseudo.map(lambda field: field[:count])
        theirs = pseudo.map(lambda field: field[count:] if partners else field.roll(1, dims=0))
        second = views[count:] if partners else views.roll(1, dims=0)
        area = self.component_area
        first = self.micro_batch.first
        classes = self.queue.classes[first : first + count]
        boxes, found = sample_component_boxes(theirs.labels, classes, samples.components, area)
        boxes = torch.where(found[:, None, None], boxes, samples.boxes)
        return paste(views[:count], own, boxes, second, theirs)

    def _consistency(
        self, name: str, logits: Tensor, pseudo: PseudoLabels, coefficient: float = 1.0, weight: Tensor | None = None
    ) -> LossTerm:
        """Lcons, see the class: the norm is of all sampled pixels, and only the confident ones have a loss."""
        factor = pseudo.confidence.square() * (pseudo.valid & self._sample_pixels(logits.detach()))
        confident = pseudo.confidence >= self.threshold
        return LossTerm(name, logits, pseudo.labels, cross_entropy, factor * confident, factor, coefficient, weight)

    def _sample_pixels(self, logits: Tensor) -> Tensor:
        """(B, H, W) bool: the pixels of the student's (B, C, H, W) logits that equalization sampling keeps."""
        uncertainty = self.confidence.uncertainty
        _, predicted = best_class(logits)
        kept = uncertainty / uncertainty.max().clamp(min=torch.finfo(uncertainty.dtype).tiny)
        return torch.rand(predicted.shape, device=self.device) < kept[predicted]

    def _choose_partners(self, samples: AELSamples) -> None:
        if not len(self.presence.present):
            return
        first, second = samples.partners
        classes = sample_classes(self.confidence.uncertainty, first)
        self.queue.stage(self.presence.sample_images(classes, second), classes)
