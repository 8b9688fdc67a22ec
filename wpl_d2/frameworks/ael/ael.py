"""AEL: everything that is drawn at random is drawn in favour of the classes of which the student is not sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import configurable
from detectron2.data import DatasetCatalog
from torch import Tensor, nn

from ...losses import cross_entropy
from ...structures import IGNORE, LossTerm, PseudoLabels, SemSegOutput
from ...utils.errors import InputError
from ..base import FRAMEWORK_REGISTRY, Batch, Terms
from ..mixing import half_boxes
from ..random_samples import choose_classes, uniform
from ..teacher_student import TeacherStudent
from ..validation import check_views, images_per_process
from .class_banks import ConfidenceBank, PresenceBank
from .copy_paste import component_boxes, copy_paste
from .partner_queue import PartnerQueue

Items = list[dict[str, Any]]


class Draws(NamedTuple):
    """All of a step's random numbers but the kept pixels', drawn before the weigher's so that twins mix alike.

    Attributes:
        pasted: shares that choose the classes to be pasted.
        parts: (B,) shares that choose the connected part to be mixed in.
        boxes: (B, H, W) bool, half of the image each, for where there is no such part.
        partners: (2, P) uniform numbers that choose the classes of the next partners, and images that show them.
    """

    pasted: Tensor
    parts: Tensor
    boxes: Tensor
    partners: Tensor


@FRAMEWORK_REGISTRY.register()
class AEL(TeacherStudent):
    """AEL (Hu et al., NeurIPS 2021): adaptive equalization learning, by a confidence c of each class.

    L = Ls + Lcons(labeled) + alpha * Lcons(unlabeled), Ls being OHEM's cross entropy, with an auxiliary head, and

        Lcons = sum(W * p^2 * m * 1[p >= threshold] * CE) / sum(p^2 * m)

    for the teacher's labels and their confidence p. m keeps a pixel that the student takes for class k with the
    probability (1 - c_k) / max(1 - c) (adaptive equalization sampling). W is 1 on labeled images; with WEIGHTING.NORM
    weight_sum, as in the presets, it is in the denominator too. Labeled images are those after adaptive copy-paste:
    pixels of classes drawn from softmax(sqrt(1 - c)) come from a second labeled image. Unlabeled images are mixed
    (adaptive CutMix) with one that was asked for because it showed a class, drawn from softmax(1 - c): with the box
    around one of the class's connected parts, or half of the image if there is none. The teacher is always in training
    mode, and its BN statistics are its own.

    Differences to the published code, in brackets. A class that a batch lacks leaves c as it is (it is drawn to 0); c
    is shared by all processes (one each) and begins with 0 (at random); classes are shut out from copy-paste by a key,
    on VOC the background (by Cityscapes' ids there too, and so aeroplane, bicycle, cat and cow as well); padding is at
    the right and the bottom (on all sides) and never trains (is background); resized images (INPUT.RESIZE bilinear) are
    rounded to whole numbers. Each unlabeled image of a process is mixed with one that was asked for: the presets load
    one a process (it loads two and drops one). c and the images that were asked for are a step and two steps old; the
    first images of a run are mixed with others of their batch. Connected parts are found by a limited number of sweeps
    (`connected_components`). The half of an image is as wide as U2PL draws it, uniform in [W / 2, W] (as high as
    H * 0.5^U(0, 1)). Losses are averaged over processes once: the published code divides them by their number and
    leaves it to DDP to average them again. Its steps on 8 GPUs are those of SOLVER.BASE_LR 0.00125 SOLVER.WEIGHT_DECAY
    0.0008 here.
    """

    teacher_trains = True
    pastes = True
    barred: Tensor

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
        """Put the framework together.

        Args:
            confidence: how sure the student is of each class.
            presence: which unlabeled images show each class.
            queue: which of them were asked for.
            paste_classes: draws of the classes that a step pastes.
            head_classes: ids of classes that are never pasted.
            component_area: share of an image that a connected part must cover to be mixed in.
            framework: the arguments of `TeacherStudent`.
        """
        super().__init__(**framework)
        self.confidence = confidence
        self.presence = presence
        self.queue = queue
        self.paste_classes = paste_classes
        self.component_area = component_area
        barred = torch.zeros(len(confidence.confidence))
        barred[list(head_classes)] = -torch.inf
        self.register_buffer("barred", barred, persistent=False)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The arguments that `cfg` stands for, the length of the unlabeled list being read.

        Raises:
            InputError: the head classes are not among the classes, or there are no others; the data has strong views;
                or a key is out of its range.
        """
        keys, classes = cfg.FRAMEWORK.AEL, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        check_views(cfg, 0)
        if keys.PASTE_CLASSES < 1:
            raise InputError(
                f"FRAMEWORK.AEL.PASTE_CLASSES: {keys.PASTE_CLASSES} is too small; set it to 1 or more, or "
                "INPUT.PASTE.PROB to 0, so that nothing is pasted"
            )
        arguments = super().from_config(cfg)
        if not set(keys.HEAD_CLASSES) < set(range(classes)):
            raise InputError(
                f"FRAMEWORK.AEL.HEAD_CLASSES: {tuple(keys.HEAD_CLASSES)}, but the {classes} classes have the ids 0 to "
                f"{classes - 1}; name some of these, not all"
            )
        images = sum(len(DatasetCatalog.get(name)) for name in cfg.DATASETS.UNLABELED)
        return arguments | {
            "confidence": ConfidenceBank(classes, keys.MOMENTUM),
            "presence": PresenceBank(images, classes, keys.PRESENCE_AREA),
            "queue": PartnerQueue(cfg.SOLVER.UNLABELED_IMS_PER_BATCH),
            "paste_classes": keys.PASTE_CLASSES,
            "head_classes": keys.HEAD_CLASSES,
            "component_area": keys.COMPONENT_AREA,
        }

    @classmethod
    def smallest_batch(cls, cfg: Any) -> int:
        """As in `Framework`: here both kinds of images have forwards of their own."""
        labeled, unlabeled = images_per_process(cfg)
        return min(labeled, unlabeled) if unlabeled else labeled

    def train(self, mode: bool = True) -> AEL:
        """As in `nn.Module`: the teacher is in training mode with the student."""
        nn.Module.train(self, mode)
        return self

    def terms(self, batch: Batch) -> Terms:
        """Teacher and student on the labeled images, then on the unlabeled ones: the student learns these mixed."""
        items = self.unlabeled(batch)
        draws = self._draw(len(items), batch["labeled"][0]["image"].shape[-2:])
        labeled = self._paste(batch["labeled"], draws)
        images = self.images(labeled, "image")
        features, own = self._segment(self.student, images)
        self.confidence.stage(own.logits, self.stack(labeled, "sem_seg"))
        if not items:
            return self.supervised(labeled, features, own)
        with torch.no_grad():
            _, taught = self._segment(self.labeler, images)
        terms, losses = self.supervised(labeled, features, own, labelers=taught)
        known = PseudoLabels.from_logits(taught.logits, self.stack(labeled, "valid"))
        terms.append(self._consistency("loss_consistency", own.logits, known))
        mixed, pseudo = self._mix(items, batch["partners"], draws)
        _, strong = self._segment(self.student, self.student.normalize(mixed))
        self.stage_strong(strong.embedding, pseudo)
        terms.append(self._consistency("loss_unsup", strong.logits, pseudo, self.alpha, pseudo.weight))
        self._ask(draws)
        return terms, losses

    @torch.no_grad()
    def after_step(self) -> None:
        """As every teacher's framework; and both banks and the queue take what the step left."""
        super().after_step()
        self.confidence.after_step()
        self.presence.after_step()
        self.queue.after_step()

    def partner_indices(self) -> list[list[int]]:
        """The partners of the next two steps' unlabeled images; no list is empty but the first two of a run."""
        return self.queue.upcoming()

    def ineffective_parts(self) -> list[str]:
        """Whether no image is remembered to show a class."""
        if self.presence.present.any():
            return []
        area = self.presence.min_area
        return [
            f"FRAMEWORK.AEL.PRESENCE_AREA: no unlabeled image's last view showed a class on {area:g} of it: the images "
            "to mix with were not chosen by their classes"
        ]

    def _draw(self, count: int, size: Sequence[int]) -> Draws:
        return Draws(
            pasted=uniform(self.paste_classes, device=self.device),
            parts=uniform(count, device=self.device),
            boxes=half_boxes(count, size, 1.0, self.device),
            partners=uniform(2, self.queue.count, device=self.device),
        )

    @torch.no_grad()
    def _paste(self, items: Items, draws: Draws) -> Items:
        classes = choose_classes(self.confidence.doubt.sqrt() + self.barred, draws.pasted)
        pasted = torch.zeros(IGNORE + 1, dtype=torch.bool, device=self.device).index_fill_(0, classes, True)
        detector = self.student.detector
        return [copy_paste(item, pasted, None if detector is None else detector.object_classes) for item in items]

    def _segment(self, model: Any, images: Tensor) -> tuple[dict[str, Tensor], SemSegOutput]:
        features = model.encode(images)
        return features, model.decode(features, images.shape[-2:])

    @torch.no_grad()
    def _mix(self, items: Items, partners: Items, draws: Draws) -> tuple[Tensor, PseudoLabels]:
        """The unlabeled images, each with a box of its partner pasted in, and their labels."""
        both, count = [*items, *partners], len(items)
        views, labels = self.stack(both, "image"), self.label({"labeled": [], "unlabeled": both})
        if len(self.presence.present):
            self.presence.stage([item["index"] for item in both], labels.labels)
        own = labels.map(lambda field: field[:count])
        theirs = labels.map(lambda field: field[count:] if partners else field.roll(1, dims=0))
        second = views[count:] if partners else views.roll(1, dims=0)
        boxes, found = component_boxes(theirs.labels, self.queue.classes[:count], draws.parts, self.component_area)
        boxes = torch.where(found[:, None, None], boxes, draws.boxes)
        return torch.where(boxes[:, None], second, views[:count]), own.where(boxes, theirs)

    def _consistency(
        self, name: str, logits: Tensor, pseudo: PseudoLabels, coefficient: float = 1.0, weight: Tensor | None = None
    ) -> LossTerm:
        """See the class: the norm is of all sampled pixels, and only the confident ones have a loss."""
        share = pseudo.confidence.square() * (pseudo.valid & self._sample(logits.detach()))
        sure = pseudo.confidence >= self.threshold
        return LossTerm(name, logits, pseudo.labels, cross_entropy, share * sure, share, coefficient, weight)

    def _sample(self, logits: Tensor) -> Tensor:
        """(B, H, W) bool: which pixels of the student's (B, C, H, W) logits are kept (equalization sampling)."""
        doubt = self.confidence.doubt
        predicted = logits.argmax(dim=1)
        kept = doubt / doubt.max().clamp(min=torch.finfo(doubt.dtype).tiny)
        return torch.rand(predicted.shape, device=self.device) < kept[predicted]

    def _ask(self, draws: Draws) -> None:
        if not len(self.presence.present):
            return
        first, second = draws.partners
        classes = choose_classes(self.confidence.doubt, first)
        self.queue.stage(self.presence.choose(classes, second), classes)
