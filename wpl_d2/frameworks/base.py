"""The protocol of a framework, that is of a semi-supervised method: how a batch becomes losses.

A framework is the model that the trainer calls. It holds the student, its teacher (if it has one) and the weigher. In
each step the trainer calls `forward`, then the optimizer, then `after_step`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from ..config.validation import check_config
from ..data.pixel_values import PixelLayout
from ..data.transforms.color_batch import RGB, Places, change_colors
from ..losses import reduce_term
from ..modeling import UnifiedSegDet, build_model, copy_model
from ..structures import Detections, LossTerm, PseudoLabels, SemSegOutput, StepRecord
from ..weighting import Evidence, PixelWeigher, Refinement
from .compilation import CompiledParts
from .loss_terms import labeled_losses, select, split
from .micro_batches import WHOLE, Items, add_to, scaled
from .pseudo_labels import (
    Prediction,
    build_refinement,
    evaluation_mode,
    gather_evidence,
    predict,
    refined,
    summarize,
    weighed,
)
from .validation import check_framework_name, check_requirements, local_batch, per_micro_batch

FRAMEWORK_REGISTRY = Registry("FRAMEWORK")
FRAMEWORK_REGISTRY.__doc__ = "Semi-supervised methods: subclasses of `Framework`, chosen by FRAMEWORK.NAME."

Batch = dict[str, Items]
"""{"labeled": items of `LabeledMapper`, "unlabeled": items of `UnlabeledMapper`, "partners": likewise, "held_out": see
`wpl_d2.data.TrainBatch`; the last two may be missing}."""

Terms = tuple[list[LossTerm], dict[str, Tensor]]
"""The per-pixel terms of a step, and its scalar losses (the detector's, contrastive ones)."""


def build_framework(cfg: Any) -> Framework:
    """The framework that `cfg.FRAMEWORK.NAME` names, on `cfg.MODEL.DEVICE`.

    Raises:
        InputError: no framework of that name, an invalid config, or one that this framework cannot use.
    """
    name = check_framework_name(cfg.FRAMEWORK.NAME, [key for key, _ in FRAMEWORK_REGISTRY])
    framework = FRAMEWORK_REGISTRY.get(name)
    check_config(cfg)
    framework.check_config(cfg)
    return framework(cfg).to(cfg.MODEL.DEVICE)


class Framework(nn.Module):
    """What all frameworks share: supervised losses, pseudo-labels, the reduction of loss terms.

    A subclass implements `terms`, and overrides the rest as it needs.

    With SOLVER.GRAD_ACCUMULATION a micro-batch is to `terms` what a batch is otherwise: BN statistics, and all that
    images of a batch share, are its own. Per-pixel losses are averaged over the whole step's pixels. `after_step`,
    schedules and the teacher count steps.

    Attributes:
        student: the model that is trained.
        teacher: a model that makes pseudo-labels and has no gradient, or None.
        weigher: memory bank and weights, or None where every weight is 1.
        iteration: the current step, set by the trainer; all schedules are functions of it.
        class_weights: (C,) float32, of the labeled losses, set by the trainer; None: all are 1.
        micro_batch: which part of the step's batch the next forward gets, set by the trainer.
        last_step: see `StepRecord`.
        metric: selects the best checkpoint; a name in metrics.json.
        semi_supervised: whether it learns from unlabeled images.
        has_representation: whether it trains MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM.
        strong_views: the number of strong views of an image that it learns from; None: it takes any.
        strong_labeled: whether it learns from strong views of labeled images (INPUT.STRONG.LABELED).
        pastes: whether it pastes from the second labeled images of INPUT.PASTE.
        one_labeler: whether all labels that it weighs are one model's.
        separate_forwards: whether labeled and unlabeled images have forwards of their own.
        mixes: whether it mixes the unlabeled images of a process with each other (FRAMEWORK.CUTMIX).
        trains_in_phases: whether some of the parameters that it trains have no gradient in some steps.
        method_head, sem_seg_head: the MODEL.METHOD_HEAD.NAME, and the MODEL.SEM_SEG_HEAD.NAME, of its own, if any.
    """

    metric = "sem_seg/mIoU"
    semi_supervised = True
    has_representation = False
    strong_views: int | None = None
    strong_labeled = False
    pastes = False
    one_labeler = True
    separate_forwards = False
    mixes = False
    trains_in_phases = False
    method_head = sem_seg_head = ""

    @configurable
    def __init__(
        self,
        *,
        student: UnifiedSegDet,
        teacher: UnifiedSegDet | None = None,
        weigher: PixelWeigher | None = None,
        refinement: Refinement | None = None,
        norm: str = "valid",
        labeled_from: str = "student",
        unlabeled_view: str = "weak",
        threshold: float = 0.95,
        alpha: float = 1.0,
        burn_in: int = 0,
        ohem: dict[str, Any] | None = None,
        compiled: bool = False,
        rgb: Places | None = RGB,
    ) -> None:
        """Store the parts and copy the student's weights to the teacher.

        Args:
            student: the model to train.
            teacher: of the same architecture.
            weigher: None disables weighting.
            refinement: changes pseudo-labels before they are weighed; None disables it.
            norm: denominator of weighted losses, see `reduce_term`.
            labeled_from: whose embeddings of labeled images fill the bank: "student" or "teacher".
            unlabeled_view: whose embeddings of unlabeled images do: "weak" (the pseudo-labeler's) or "strong" (the
                student's).
            threshold: least confidence of a pseudo-label that trains.
            alpha: factor of all losses on unlabeled images.
            burn_in: number of supervised steps at the start.
            ohem: `threshold` and `min_kept` of `ohem_mask` for the supervised loss; None disables OHEM.
            compiled: whether `forward` runs backbones and segmentation heads by compiled code.
            rgb: see `change_colors`.
        """
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.weigher = weigher
        self.refinement = refinement
        self.norm = norm
        self.labeled_from = labeled_from
        self.unlabeled_view = unlabeled_view
        self.threshold: float | Tensor = threshold
        self.alpha = alpha
        self.burn_in = burn_in
        self.ohem = ohem
        self.rgb = rgb
        self.iteration = 0
        self.class_weights: Tensor | None = None
        self.micro_batch = WHOLE
        self.last_step = StepRecord()
        if teacher is not None:
            teacher.requires_grad_(False)
            self.reset()
        self._compile = compiled
        self._compiled: CompiledParts | None = None
        self.train()

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The arguments of `__init__`, without the teacher, which subclasses that have one add."""
        ohem = cfg.FRAMEWORK.OHEM
        return {
            "student": build_model(cfg),
            "weigher": PixelWeigher.from_config(cfg) if cfg.WEIGHTING.ENABLED else None,
            "refinement": build_refinement(cfg),
            "norm": cfg.WEIGHTING.NORM,
            "labeled_from": cfg.WEIGHTING.LABELED_FROM,
            "unlabeled_view": cfg.WEIGHTING.UNLAB_VIEW,
            "threshold": cfg.FRAMEWORK.THRESHOLD,
            "alpha": cfg.FRAMEWORK.ALPHA,
            "burn_in": cfg.FRAMEWORK.BURN_IN,
            "ohem": {"threshold": ohem.THRESHOLD, "min_kept": per_micro_batch(cfg, ohem.MIN_KEPT)}
            if ohem.ENABLED
            else None,
            "compiled": cfg.MODEL.COMPILE,
            "rgb": PixelLayout.from_config(cfg).rgb,
        }

    @classmethod
    def check_config(cls, cfg: Any) -> None:
        """Reject a config that this framework cannot use, before anything is built.

        A subclass with rules of its own extends it.

        Args:
            cfg: complete; `wpl_d2.config.validation.check_config` finds nothing wrong with it.

        Raises:
            InputError: the message names the key and how to change it.
        """
        check_requirements(cls, cfg)

    @classmethod
    def smallest_batch(cls, cfg: Any) -> int:
        """Images of the smallest batch, or micro-batch, that a process puts through a model in training mode.

        With `separate_forwards` all strong views of unlabeled images go together, else all images but in the burn-in.
        """
        labeled, unlabeled = local_batch(cfg)
        if cls.separate_forwards:
            return min(labeled, (cls.strong_views or 1) * unlabeled or labeled)
        return labeled + unlabeled if cls.semi_supervised and not cfg.FRAMEWORK.BURN_IN else labeled

    @property
    def device(self) -> torch.device:
        """The student's device."""
        return self.student.device

    @property
    def students(self) -> list[UnifiedSegDet]:
        """The models that are trained; the first is `student`."""
        return [self.student]

    @property
    def needs(self) -> frozenset[str]:
        """What refinement and weigher need beyond the prediction; see `Score`."""
        return frozenset[str]().union(*(part.needs for part in (self.weigher, self.refinement) if part is not None))

    @property
    def selection(self) -> str:
        """Which pseudo-labels train, in words for messages."""
        return f"FRAMEWORK.THRESHOLD {self.threshold:g}"

    @property
    def pseudo_labeler(self) -> UnifiedSegDet:
        """The model that makes the pseudo-labels: the teacher, or the student where there is none."""
        return self.student if self.teacher is None else self.teacher

    def reset(self) -> None:
        """Copy the student's weights to the teacher, as after loading them."""
        if self.teacher is not None:
            copy_model(self.teacher, self.student)

    def train(self, mode: bool = True) -> Framework:
        """As in `nn.Module`, but the teacher stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a step. The state changes only in the BN statistics of models that are in training mode.

        Losses and `last_step.scalars` of a micro-batch are parts that the trainer adds up: per-pixel terms count by its
        share of the pixels, so that means over all labeled or valid pixels are those of the whole batch; other losses
        by its share of the images.

        Args:
            batch: the items of all streams; "unlabeled" and "partners" may be empty.

        Returns:
            scalar losses by name; terms of the same name are summed.
        """
        self.last_step, part = StepRecord(), self.micro_batch
        self.stage_held_out(batch.get("held_out", []), len(batch["labeled"]))
        with self.compiled():
            terms, losses = self.terms(batch)
        reduced: dict[str, Tensor] = {}
        for term in terms:
            share = part.labeled if term.weight is None else part.unlabeled
            term = replace(term, coefficient=term.coefficient * share)
            add_to(reduced, {term.name: reduce_term(term, self.norm)})
        self.last_step.scalars = scaled(self.last_step.scalars, part.unlabeled)
        return reduced | scaled(losses, part.images)

    def compiled(self) -> AbstractContextManager[None]:
        """A context in which the models run by compiled code, if MODEL.COMPILE asks for it."""
        if self._compile and self._compiled is None:  # not in the constructor: those of subclasses add models
            self._compiled = CompiledParts(self)
        return self._compiled.in_use() if self._compiled else nullcontext()

    def terms(self, batch: Batch) -> Terms:
        """All forward passes of the step, and the loss terms they make.

        Pseudo-labels come from `make_pseudo_labels`, before mixing. Random choices are drawn before it is called, since
        the weigher draws too: then a weighted training mixes its images as its plain twin does.
        """
        raise NotImplementedError

    @torch.no_grad()
    def after_step(self) -> None:
        """Update lasting state after the optimizer and before the checkpoint: by default the memory bank."""
        if self.weigher is not None:
            self.weigher.after_step()

    def ineffective_parts(self) -> list[str]:
        """Which of the framework's own parts had no effect so far: messages `key: what was so`."""
        return []

    def partner_indices(self) -> list[list[int]]:
        """Indices into the unlabeled list of the images that this process wants in `batch["partners"]`.

        They are part of the state, and known two steps ahead, so that the loader makes an image while the step before
        its own runs. The trainer asks before the first step and after each forward.

        Returns:
            the lists for the next step and for the one after it; empty for a framework without partners.
        """
        return []

    def eval_models(self) -> dict[str, UnifiedSegDet]:
        """Models to evaluate and export, by name; the first is the one to use."""
        return ({} if self.teacher is None else {"teacher": self.teacher}) | {"student": self.student}

    # What subclasses build `terms` from.

    def stack(self, items: Items, key: str) -> Tensor:
        """One field of all items as a tensor (B, ...) on the device."""
        # Moved one by one: a stacked copy would no longer be in the loader's pinned memory.
        return torch.stack([item[key].to(self.device, non_blocking=True) for item in items])

    def images(self, items: Items, key: str) -> Tensor:
        """One image field of all items, normalized: (B, C, H, W) float."""
        return self.student.normalize(self.stack(items, key))

    @torch.no_grad()
    def make_strong_views(self, items: Items) -> Tensor:
        """The strong views of all items, (B, V, C, H, W); made here if the loader has left it to the device."""
        if "operations" not in items[0]:
            return self.stack(items, "strong")
        weak, views = self.stack(items, "image"), len(items[0]["operations"])
        drawn = [operations for item in items for operations in item["operations"]]
        return change_colors(weak.repeat_interleave(views, dim=0), drawn, self.rgb).unflatten(0, (len(items), views))

    def unlabeled(self, batch: Batch) -> Items:
        """The unlabeled items that the step uses: none during the burn-in."""
        return batch["unlabeled"] if self.iteration >= self.burn_in else []

    @torch.no_grad()
    def teacher_forward(self, items: Items) -> Prediction:
        """The prediction of the teacher (of the student, if there is none) on the items' weak views."""
        return predict(self.pseudo_labeler, self.images(items, "image"))

    def label(self, items: Items) -> Prediction:
        """The prediction that labels the items' weak views: `teacher_forward`'s, unless a method makes its own."""
        return self.teacher_forward(items)

    @torch.no_grad()
    def teacher_forwards(self, items: Items, labeled: Items) -> tuple[Prediction, SemSegOutput | None]:
        """`teacher_forward` of unlabeled items, and of the labeled ones, if the bank takes the teacher's embeddings.

        In evaluation mode one forward of all images gives what one for each kind would.

        Returns:
            the unlabeled items' prediction, and the teacher's output for the labeled ones, or None, for
            `supervised_losses`.
        """
        if self.weigher is None or self.labeled_from != "teacher" or self.teacher is None:
            return self.teacher_forward(items), None
        images, features, output = self.teacher_forward([*items, *labeled])
        weak, own = split(output, len(items), len(labeled))
        return Prediction(images[: len(items)], select(features, slice(len(items))), weak), own

    @torch.no_grad()
    def make_pseudo_labels(self, items: Items, prediction: Prediction) -> PseudoLabels:
        """Pseudo-labels, refined and weighed, without a gradient; stages the reliable pixels for the bank.

        Args:
            items: the unlabeled items.
            prediction: the pseudo-labeler's on their weak views.
        """
        detections = self._detections(items, prediction) if "boxes" in self.needs else None
        evidence = gather_evidence(self.pseudo_labeler, prediction, self.stack(items, "valid"), detections)
        pseudo = weighed(self.refine(evidence), self.weigher)
        if self.weigher is not None and self.weigher.box_score is not None and self.unlabeled_view == "weak":
            self.weigher.stage_reliable(prediction.output.embedding, pseudo.labels, pseudo.reliable)
        self.record(items, pseudo)
        return pseudo

    def refine(self, evidence: Evidence) -> Evidence:
        """The evidence of unlabeled images with the pseudo-labels that are weighed and learned."""
        return refined(evidence, self.refinement, self.weigher)

    def stage_strong(self, embedding: Tensor, pseudo: PseudoLabels) -> None:
        """Stage reliable pixels of a strong view for the bank, if WEIGHTING.UNLAB_VIEW is strong.

        Args:
            embedding: (B, D, h, w), the student's.
            pseudo: the view's pseudo-labels.
        """
        if self.weigher is not None and self.unlabeled_view == "strong":
            self.weigher.stage_reliable(embedding, pseudo.labels, pseudo.reliable)

    @torch.no_grad()
    def stage_held_out(self, items: Items, at_a_time: int) -> None:
        """Stage refined labels, and the masks, of labeled items, `at_a_time` together, for a fit of `calibrated`."""
        if self.weigher is None:
            return
        # Not all that weights and RPPI need: cached boxes are those of unlabeled images alone.
        needs = self.weigher.fit_needs | (frozenset() if self.refinement is None else self.refinement.needs)
        for start in range(0, len(items), at_a_time):
            part = items[start : start + at_a_time]
            with evaluation_mode(self):
                prediction = self.label(part)
            detections = self._detections(part, prediction) if "boxes" in needs else None
            evidence = gather_evidence(self.pseudo_labeler, prediction, self.stack(part, "valid"), detections)
            evidence = refined(evidence, self.refinement, self.weigher)
            self.weigher.stage_held_out(evidence, self.stack(part, "sem_seg"))

    def record(self, items: Items, pseudo: PseudoLabels) -> None:
        """Keep the items' pseudo-labels in `last_step`."""
        self.last_step.weak_views = [item["image"] for item in items]
        self.last_step.pseudo_labels = pseudo
        self.last_step.scalars = summarize(pseudo, self.threshold)

    def supervised_losses(
        self,
        items: Items,
        features: dict[str, Tensor],
        output: SemSegOutput,
        coefficient: float = 1.0,
        teacher_output: SemSegOutput | None = None,
    ) -> Terms:
        """The losses of labeled images; stages their embeddings for the bank.

        Args:
            items: the labeled items.
            features: the student's features of these and, behind them, of all other images of the same forward. As in
                the published hosts the others enter the auxiliary head's normalization, but not its loss.
            output: the student's output for the labeled images alone.
            coefficient: factor of the segmentation losses.
            teacher_output: the teacher's output for the labeled images, if it is known already.
        """
        target = self.stack(items, "sem_seg")
        self.last_step.labeled = (items[0]["image"], items[0]["sem_seg"], output.logits[0].detach())
        self._stage_labeled(items, output, target, teacher_output)
        return labeled_losses(
            self.student, items, target, features, output.logits, self.ohem, coefficient, self.class_weights
        )

    def _detections(self, items: Items, prediction: Prediction) -> list[Detections]:
        """All detections on the items' weak views: the model's own, or else the cached ones."""
        if self.pseudo_labeler.has_detector:
            size = (prediction.images.shape[-2], prediction.images.shape[-1])
            return self.pseudo_labeler.detect(prediction.features, [size] * len(items))
        # Chosen by their scores on the CPU, where nothing has to wait for how many they are.
        return [item["detections"] for item in items]

    @torch.no_grad()
    def _stage_labeled(
        self, items: Items, output: SemSegOutput, target: Tensor, teacher_output: SemSegOutput | None
    ) -> None:
        if self.weigher is None:
            return
        if self.labeled_from == "teacher" and self.pseudo_labeler is not self.student:
            output = self.teacher_forward(items).output if teacher_output is None else teacher_output
        self.weigher.stage_labeled(output.embedding, output.logits, target)
