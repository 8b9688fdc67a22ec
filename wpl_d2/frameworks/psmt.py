"""PS-MT: two teachers, which take turns in following the student, label for a student with perturbed features."""

from __future__ import annotations

from functools import partial
from math import cos, pi
from typing import Any, Literal

import torch
from detectron2.config import configurable
from torch import Tensor, nn
from typing_extensions import override

from ..losses import cross_entropy
from ..modeling import ModelPair, UnifiedSegDet, build_model, copy_model, update_ema
from ..structures import IGNORE, LossTerm, PseudoLabels, SemSegOutput
from .base import FRAMEWORK_REGISTRY, Batch, Framework, Items, Terms
from .loss_terms import labeled_losses
from .micro_batches import add_to
from .mixing import beta_boxes, three_boxes
from .pseudo_labels import Prediction, evaluation_mode, predict
from .validation import check_merging_head
from .virtual_adversarial import adversarial_noise


@FRAMEWORK_REGISTRY.register()
class PSMT(Framework):
    """PS-MT, perturbed and strict mean teachers (Liu et al., CVPR 2022).

    L = Ls + alpha * r(t) * Lu. Pseudo-labels and their confidence c are those of softmax((z1 + z2) / 2), where z1 and
    z2 are the teachers' logits of the weak view; of the idle teacher those of its `top_classes` most probable classes,
    and of all others the active one's. Lu is the mean of W * c * CE over the pixels of mixed strong views with
    c >= threshold, and r rises along a cosine from 0 to 1 in `ramp_steps`. The student sees strong views of labeled
    images too, and what its decoder's last convolutions read is perturbed by T-VAT: noise to which the teachers'
    convolutions are most sensitive (`adversarial_noise`). Teachers are in training mode but for that. The active one
    follows the student as EMA, the idle one keeps its weights; they change places after `turn_steps`. What is evaluated
    and exported is the mean of their logits.

    In the burn-in all three learn from labeled images, each for itself, the teachers from weak views; they begin with
    random weights. Without a burn-in they begin as the student.

    The memory bank holds the active teacher's embeddings, with which its own are compared (WEIGHTING.LABELED_FROM
    teacher). At the start of its first turn the second teacher's have nothing in common with them yet.

    Differences to the published code, in brackets: padding does not train (does); the burn-in is part of the schedule
    of the learning rate (before it); and the blur's kernel is as wide as its deviation needs (1, 3 or 5 pixels). As
    published, FRAMEWORK.PSMT.VAT_STEP is so small that float32 rounds it away: T-VAT is next to no noise then.

    With SOLVER.GRAD_ACCUMULATION the same is of each micro-batch as in `MeanTeacher`, and the number of confident
    pixels, the size of the boxes and the images that are mixed.

    Args:
        turn_steps: semi-supervised steps until teachers change places.
        ramp_steps: semi-supervised steps until the unlabeled loss has its whole factor.
        top_classes: classes of which the idle teacher's logits count.
        vat: `step` and `radius` of `adversarial_noise`.
        cutmix: "beta" or "boxes", probability and area of the boxes.
        ema_decay: of the active teacher, from its first step on.
        ema_buffers: how its BN statistics follow, see `update_ema`.
        framework: the arguments of `Framework`; the teacher is the pair of them.
    """

    teacher: ModelPair
    strong_views = 1
    strong_labeled = True
    mixes = True
    separate_forwards = True

    @configurable
    def __init__(
        self,
        *,
        turn_steps: int,
        ramp_steps: int,
        top_classes: int,
        vat: dict[str, float],
        cutmix: tuple[str, float, tuple[float, float]],
        ema_decay: float,
        ema_buffers: Literal["ema", "copy", "none"],
        **framework: Any,
    ) -> None:
        super().__init__(**framework)
        self.turn_steps = turn_steps
        self.ramp_steps = ramp_steps
        self.top_classes = top_classes
        self.vat = vat
        self.cutmix = cutmix
        self.ema_decay = ema_decay
        self.ema_buffers = ema_buffers
        self.trains_in_phases = self.burn_in > 0
        self.teacher.requires_grad_(self.trains_in_phases)

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        keys, mixing = cfg.FRAMEWORK.PSMT, cfg.FRAMEWORK.CUTMIX
        return super().from_config(cfg) | {
            "teacher": ModelPair(build_model(cfg), build_model(cfg)),
            "turn_steps": keys.TURN_STEPS,
            "ramp_steps": keys.RAMP_STEPS,
            "top_classes": min(keys.TOP_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES),
            "vat": {"step": keys.VAT_STEP, "radius": keys.VAT_RADIUS},
            "cutmix": (keys.CUTMIX, mixing.PROB, tuple(mixing.AREA)),
            "ema_decay": cfg.FRAMEWORK.EMA_DECAY,
            "ema_buffers": cfg.FRAMEWORK.EMA_BUFFERS,
        }

    @classmethod
    @override
    def check_config(cls, cfg: Any) -> None:
        super().check_config(cfg)
        check_merging_head(cfg)

    @property
    @override
    def students(self) -> list[UnifiedSegDet]:
        teachers = [self.teacher.first, self.teacher.second]
        return [self.student, *teachers] if self.trains_in_phases else [self.student]

    @property
    def teachers(self) -> tuple[UnifiedSegDet, UnifiedSegDet]:
        """The active teacher and the idle one, in the current step."""
        turn = max(0, self.iteration - self.burn_in) // self.turn_steps
        pair = self.teacher.first, self.teacher.second
        return pair[::-1] if turn % 2 else pair

    @property
    @override
    def pseudo_labeler(self) -> UnifiedSegDet:
        return self.teachers[0]

    @override
    def reset(self) -> None:
        """Copy the student's weights to the teachers, unless a burn-in trains them from their own."""
        if not self.burn_in:
            copy_model(self.teacher.first, self.student)
            copy_model(self.teacher.second, self.student)

    @override
    def train(self, mode: bool = True) -> PSMT:
        nn.Module.train(self, mode)
        return self

    def random_samples(self, views: Tensor) -> list[tuple[Tensor, Tensor]]:
        """A step's boxes: (B, H, W) bool where views (B, 3, H, W) are mixed, each with (B,) int64, with which ones."""
        kind, prob, area = self.cutmix
        count, size = len(views), views.shape[-2:]
        if kind == "beta":
            masks, partners = [beta_boxes(count, size, prob, self.device)], torch.randperm(count)[None]
        else:
            masks = list(three_boxes(count, size, prob, area, self.device).unbind(1))
            partners = torch.randint(count, (len(masks), count))
        return list(zip(masks, partners.to(self.device, non_blocking=True), strict=True))

    def random_direction(self, maps: Tensor) -> Tensor:
        """Where the search for T-VAT's noise starts, for feature maps (B, D, h, w)."""
        return torch.rand_like(maps, dtype=torch.float32) - 0.5

    @torch.no_grad()
    @override
    def label(self, items: Items) -> Prediction:
        """The active teacher's prediction for weak views, with the logits of both."""
        images = self.images(items, "image")
        active, idle = (predict(teacher, images) for teacher in self.teachers)
        kept = most_probable(idle.output.logits, self.top_classes)
        logits = torch.where(kept, idle.output.logits, active.output.logits)
        return active._replace(output=active.output._replace(logits=(active.output.logits + logits) / 2))

    @override
    def terms(self, batch: Batch) -> Terms:
        labeled, items = batch["labeled"], self.unlabeled(batch)
        images = self.student.normalize(self.make_strong_views(labeled)[:, 0])
        if self.iteration < self.burn_in:
            return self._burn_in(labeled, images)
        if items:
            views = self.make_strong_views(items)[:, 0]
            samples, prediction = self.random_samples(views), self.label(items)
        features, output = self._perturbed(images)
        strong = self._perturbed(self.student.normalize(_mix(samples, views)))[1] if items else None
        # The bank's forward of a teacher moves no BN statistics then, which a plain training would not move.
        with evaluation_mode(self.pseudo_labeler):
            terms, losses = self.supervised_losses(labeled, features, output)
        if strong is not None:
            pseudo = self.make_pseudo_labels(items, prediction).map(partial(_mix, samples))
            self.stage_strong(strong.embedding, pseudo)
            terms.append(self._unlabeled_term(strong.logits, pseudo))
        return terms, losses

    @torch.no_grad()
    @override
    def after_step(self) -> None:
        super().after_step()
        if self.iteration >= self.burn_in:
            update_ema(self.pseudo_labeler, self.student, self.ema_decay, self.ema_buffers)

    def _burn_in(self, items: Items, images: Tensor) -> Terms:
        """The losses of all three models; `images` (B, 3, H, W) are the student's, normalized."""
        terms, losses = [], dict[str, Tensor]()
        weak, target = self.images(items, "image"), self.stack(items, "sem_seg")
        predictions = [predict(teacher, weak) for teacher in self.teachers]
        for teacher, (_, features, output) in zip(self.teachers, predictions, strict=True):
            own, others = labeled_losses(
                teacher, items, target, features, output.logits, self.ohem, class_weights=self.class_weights
            )
            terms += own
            add_to(losses, others)
        _, features, output = predict(self.student, images)
        own, others = self.supervised_losses(items, features, output, teacher_output=predictions[0].output)
        add_to(losses, others)
        return terms + own, losses

    def _perturbed(self, images: Tensor) -> tuple[dict[str, Tensor], SemSegOutput]:
        """The student's features of normalized images (B, 3, H, W), and its output from perturbed ones."""
        features, size = self.student.encode(images), (images.shape[-2], images.shape[-1])
        heads: list[Any] = [model.sem_seg_head for model in (self.student, *self.teachers)]
        own, first, second = heads
        maps = own.merge(features)

        def segment(maps: Tensor) -> Tensor:
            return (first.classify(maps, size).logits + second.classify(maps, size).logits) / 2

        with evaluation_mode(first), evaluation_mode(second):
            noise = adversarial_noise(segment, maps, self.random_direction(maps), **self.vat)
        return features, own.classify(maps + noise, size)

    def _unlabeled_term(self, logits: Tensor, pseudo: PseudoLabels) -> LossTerm:
        """Lu of the student's logits (B, C, H, W) for mixed images."""
        confident = (pseudo.confidence >= self.threshold) & (pseudo.labels != IGNORE)
        return LossTerm(
            name="loss_unsup",
            logits=logits,
            target=pseudo.labels,
            pixel_loss=cross_entropy,
            mask=confident * pseudo.confidence,
            norm=confident,
            coefficient=self.alpha * cosine_ramp(self.iteration - self.burn_in, self.ramp_steps),
            weight=pseudo.weight,
        )


def most_probable(logits: Tensor, count: int) -> Tensor:
    """Which classes are the `count` most probable ones of their pixel: logits (B, C, H, W) -> bool of that shape."""
    return torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.topk(count, dim=1).indices, True)


def cosine_ramp(step: int, length: int) -> float:
    """A factor that rises along a cosine from 0 at step 0 to 1 at step `length`, and stays there."""
    return 1.0 if step >= length else (1 - cos(pi * step / length)) / 2


def _mix(samples: list[tuple[Tensor, Tensor]], maps: Tensor) -> Tensor:
    """Maps (B, H, W) or (B, 3, H, W) of images, with the boxes of `random_samples` from others, one box on another."""
    mixed = maps
    for mask, partner in samples:
        mixed = torch.where(mask if maps.ndim == 3 else mask[:, None], maps[partner], mixed)
    return mixed
