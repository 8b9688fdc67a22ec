"""The protocol of a framework, that is of a semi-supervised method: how a batch becomes losses.

A framework is the model that the trainer calls. It holds the student, the labeler (a teacher, or the student itself)
and the weigher. A step runs `forward` (terms, reduction), then the optimizer, then `after_step`.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import configurable
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from ..losses import reduce_term
from ..modeling import UnifiedSegDet, build_model, copy_model
from ..structures import Detections, LossTerm, PseudoLabels, SemSegOutput
from ..utils.errors import InputError, check_name
from ..weighting import PixelWeigher, Refinement
from .loss_terms import select, supervised_term
from .pseudo_labels import build_refinement, fill_in, make_evidence
from .validation import check_config, check_paste, check_pool_norm, images_per_process

FRAMEWORK_REGISTRY = Registry("FRAMEWORK")
FRAMEWORK_REGISTRY.__doc__ = "Semi-supervised methods: subclasses of `Framework`, chosen by FRAMEWORK.NAME."

Batch = dict[str, list[dict[str, Any]]]
"""{"labeled": items of `LabeledMapper`, "unlabeled": items of `UnlabeledMapper`, "partners": likewise}."""

Terms = tuple[list[LossTerm], dict[str, Tensor]]
"""The per-pixel terms of a step, and the losses that have no pixels (the detector's), ready as scalars."""


def build_framework(cfg: Any) -> Framework:
    """The framework that `cfg.FRAMEWORK.NAME` names, on `cfg.MODEL.DEVICE`.

    Raises:
        InputError: no framework of that name.
    """
    name = check_name("FRAMEWORK.NAME", cfg.FRAMEWORK.NAME, [key for key, _ in FRAMEWORK_REGISTRY])
    return FRAMEWORK_REGISTRY.get(name)(cfg).to(cfg.MODEL.DEVICE)


class Framework(nn.Module):
    """What all frameworks share: the walk of a batch, the reduction of losses, the supervised part.

    A subclass implements `terms`; the rest it overrides as it needs.

    Attributes:
        student: what is trained.
        teacher: a labeler of its own that carries no gradient, or None.
        weigher: memory bank and weights, or None where every weight is 1.
        iteration: the current step, set by the trainer; all schedules are functions of it.
        latest: detached tensors of the last forward, for pictures and diagnostics; not part of the state.
        metric: what tells the best checkpoint, as in `metrics.json`.
        semi_supervised: whether it learns from unlabeled images.
        has_representation: whether it trains the pixels' representation.
        pastes: whether it pastes from the second labeled images of INPUT.PASTE.
        mixes: whether it mixes the unlabeled images of a process with each other, as FRAMEWORK.CUTMIX says.
    """

    metric = "sem_seg/mIoU"
    semi_supervised = True
    has_representation = False
    pastes = False
    mixes = False

    @configurable
    def __init__(
        self,
        *,
        student: UnifiedSegDet,
        teacher: UnifiedSegDet | None = None,
        weigher: PixelWeigher | None = None,
        refinement: Refinement | None = None,
        norm: str = "valid",
        embeddings: tuple[str, str] = ("student", "weak"),
        threshold: float = 0.95,
        alpha: float = 1.0,
        burn_in: int = 0,
        ohem: dict[str, Any] | None = None,
    ) -> None:
        """Put a framework together.

        Args:
            student: the model to train.
            teacher: the labeler that follows it; made equal to the student here.
            weigher: None switches the weighting off.
            refinement: mends pseudo-labels; None leaves them as they are.
            norm: denominator of weighted losses, see `reduce_term`.
            embeddings: what fills the rings: for the labeled one "student" or "teacher", for the unlabeled one the
                "weak" (the labeler's) or the "strong" view (the student's).
            threshold: least confidence of a pseudo-label that trains.
            alpha: factor of all losses on unlabeled images.
            burn_in: steps of supervised training first.
            ohem: `threshold` and `min_kept` of `ohem_mask` for the labeled loss; None: it is over all pixels.
        """
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.weigher = weigher
        self.refinement = refinement
        self.norm = norm
        self.labeled_from, self.unlabeled_view = embeddings
        self.threshold = threshold
        self.alpha = alpha
        self.burn_in = burn_in
        self.ohem = ohem
        self.iteration = 0
        self.latest: dict[str, Any] = {}
        if teacher is not None:
            teacher.requires_grad_(False)
            self.reset()
        self.train()

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The arguments that `cfg` stands for, without the teacher, which is a framework's own matter.

        Raises:
            InputError: keys that do not exist or do not go together.
        """
        check_config(cfg)
        check_paste(cfg, cls.pastes)
        check_pool_norm(cfg, cls.smallest_batch(cfg))
        if cfg.MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM and not cls.has_representation:
            raise InputError(
                f"MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM: {cfg.FRAMEWORK.NAME} trains no representation; set it to 0"
            )
        ohem = cfg.FRAMEWORK.OHEM
        return {
            "student": build_model(cfg),
            "weigher": PixelWeigher.from_config(cfg) if cfg.WEIGHTING.ENABLED else None,
            "refinement": build_refinement(cfg),
            "norm": cfg.WEIGHTING.NORM,
            "embeddings": (cfg.WEIGHTING.LABELED_FROM, cfg.WEIGHTING.UNLAB_VIEW),
            "threshold": cfg.FRAMEWORK.THRESHOLD,
            "alpha": cfg.FRAMEWORK.ALPHA,
            "burn_in": cfg.FRAMEWORK.BURN_IN,
            "ohem": {"threshold": ohem.THRESHOLD, "min_kept": ohem.MIN_KEPT} if ohem.ENABLED else None,
        }

    @classmethod
    def smallest_batch(cls, cfg: Any) -> int:
        """Images of the smallest batch that a process puts through a model in training mode.

        Here the student gets the labeled images together with unlabeled ones, but without any in the burn-in.
        """
        labeled, unlabeled = images_per_process(cfg)
        return labeled + unlabeled if cls.semi_supervised and not cfg.FRAMEWORK.BURN_IN else labeled

    @property
    def device(self) -> torch.device:
        """Where the student is."""
        return self.student.device

    @property
    def needs(self) -> frozenset[str]:
        """What pseudo-labels are mended and weighed by, beyond the labeler's own output; see `Score`."""
        return frozenset[str]().union(*(part.needs for part in (self.weigher, self.refinement) if part is not None))

    @property
    def selection(self) -> str:
        """What a pseudo-label must reach to train, in words."""
        return f"FRAMEWORK.THRESHOLD {self.threshold:g}"

    @property
    def labeler(self) -> UnifiedSegDet:
        """Who labels the weak views: the teacher, or the student where there is none."""
        return self.student if self.teacher is None else self.teacher

    def reset(self) -> None:
        """Make the teacher equal to the student, as after loading the student's first weights."""
        if self.teacher is not None:
            copy_model(self.teacher, self.student)

    def train(self, mode: bool = True) -> Framework:
        """As in `nn.Module`, but the teacher stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a step. Changes no lasting state but the BN statistics of whoever computes in training mode.

        That is the student, and a teacher with `teacher_trains`.

        Args:
            batch: the items of both streams; "unlabeled" may be empty.

        Returns:
            scalar losses by name; those of terms with one name are added up.
        """
        self.latest = {}
        terms, losses = self.terms(batch)
        reduced: dict[str, Tensor] = {}
        for term in terms:
            loss = reduce_term(term, self.norm)
            reduced[term.name] = reduced[term.name] + loss if term.name in reduced else loss
        return reduced | losses

    def terms(self, batch: Batch) -> Terms:
        """Every forward of the step: the labels of weak views, before mixing, and all of the student's forwards.

        A labeler of its own labels in `label`; where the student labels in a forward that it is trained on, that
        forward's output goes to `resolve`.
        """
        raise NotImplementedError

    @torch.no_grad()
    def after_step(self) -> None:
        """Take over what the step left, after the optimizer and before the checkpoint: here the staged embeddings."""
        if self.weigher is not None:
            self.weigher.after_step()

    def ineffective_parts(self) -> list[str]:
        """What of its own, beyond what all frameworks have, did nothing so far: a text each, `key: what was so`."""
        return []

    def partner_indices(self) -> list[list[int]]:
        """Places in the unlabeled list of the images that this process wants in `batch["partners"]`; its state.

        Asked before the first step and after each forward, when the device is idle. Two steps ahead, so that an image
        is made while the step before its own runs.

        Returns:
            the lists for the next step and for the one after it; empty for a framework that never asks.
        """
        return []

    def eval_models(self) -> dict[str, UnifiedSegDet]:
        """Models to evaluate and export, by name; the first is the one to use."""
        students = {"student": self.student}
        return students if self.teacher is None else {"teacher": self.teacher} | students

    # What subclasses build `terms` from.

    def stack(self, items: list[dict[str, Any]], key: str) -> Tensor:
        """One field of all items as a tensor (B, ...) on the device."""
        # Item by item, since what the loader pinned is pinned no more once it is stacked.
        return torch.stack([item[key].to(self.device, non_blocking=True) for item in items])

    def images(self, items: list[dict[str, Any]], key: str) -> Tensor:
        """One image field of all items, normalized: (B, 3, H, W) float."""
        return self.student.normalize(self.stack(items, key))

    def unlabeled(self, batch: Batch) -> list[dict[str, Any]]:
        """The unlabeled items that the step uses: none during the burn-in."""
        return batch["unlabeled"] if self.iteration >= self.burn_in else []

    @torch.no_grad()
    def label(self, batch: Batch) -> PseudoLabels:
        """Pseudo-labels of the weak views, from a forward that the labeler makes for them."""
        return self.resolve(batch["unlabeled"], *self.look(batch["unlabeled"]))

    @torch.no_grad()
    def look(self, items: list[dict[str, Any]]) -> tuple[dict[str, Tensor], SemSegOutput]:
        """The labeler's features of the items' weak views, and what its head makes of them."""
        weak = self.images(items, "image")
        features = self.labeler.encode(weak)
        return features, self.labeler.decode(features, (weak.shape[-2], weak.shape[-1]))

    @torch.no_grad()
    def resolve(self, items: list[dict[str, Any]], features: dict[str, Tensor], output: SemSegOutput) -> PseudoLabels:
        """Pseudo-labels, with `reliable` and `weight` filled in; they carry no gradient.

        Args:
            items: the unlabeled items.
            features: the labeler's, of exactly their weak views.
            output: what the labeler's head made of these.
        """
        pseudo = PseudoLabels.from_logits(output.logits, self.stack(items, "valid"))
        detections = self.weak_detections(items, features) if "boxes" in self.needs else None
        images = self.images(items, "image") if "views" in self.needs else None
        evidence = make_evidence(self.labeler, pseudo, output, detections, images)
        pseudo = fill_in(evidence, self.refinement, self.weigher)
        if self.weigher is not None and self.weigher.box_score is not None and self.unlabeled_view == "weak":
            self.weigher.stage_reliable(output.embedding, pseudo.labels, pseudo.reliable)
        self._remember(items, pseudo)
        return pseudo

    def supervised(
        self,
        items: list[dict[str, Any]],
        features: dict[str, Tensor],
        output: SemSegOutput,
        coefficient: float = 1.0,
        labelers: SemSegOutput | None = None,
    ) -> Terms:
        """The labeled images' losses, and their embeddings for the bank.

        Args:
            items: the labeled items.
            features: the student's features of these and, behind them, of all other images of the same forward. As in
                the published hosts these give the auxiliary head's normalization its statistics, but have no loss.
            output: what the student's head made of the labeled ones.
            coefficient: factor of the segmentation losses.
            labelers: what the labeler's head made of them, where that is known already.
        """
        target = self.stack(items, "sem_seg")
        self.latest["labeled"] = (items[0]["image"], items[0]["sem_seg"], output.logits[0].detach())
        self._stage_labeled(items, output, target, labelers)
        size = (target.shape[-2], target.shape[-1])
        losses: dict[str, Tensor] = {}
        if self.student.has_detector:
            instances = [item["instances"].to(self.device) for item in items]
            own = select(features, slice(len(items)))
            losses = self.student.detection_losses(own, [size] * len(items), instances)
        terms = [supervised_term("loss_sem_seg", output.logits, target, self.ohem, coefficient)]
        if (aux_head := self.student.aux_head) is not None:
            share, logits = coefficient * aux_head.loss_weight, aux_head(features, size, len(items))
            terms.append(supervised_term("loss_aux", logits, target, self.ohem, share))
        return terms, losses

    @torch.no_grad()
    def weak_detections(self, items: list[dict[str, Any]], features: dict[str, Tensor]) -> list[Detections]:
        """All detections of each weak view: the cached ones of the items, else the labeler's own.

        Args:
            items: the unlabeled items.
            features: the labeler's, of their weak views.
        """
        if self.labeler.has_detector:
            return self.labeler.detect(features, [tuple(item["image"].shape[-2:]) for item in items])
        return [item["detections"].to(self.device) for item in items]

    @torch.no_grad()
    def stage_strong(self, embedding: Tensor, labels: PseudoLabels) -> None:
        """Offer the student's embedding (B, D, h, w) of a strong view to the bank, if it is filled from that view."""
        if self.weigher is not None and self.unlabeled_view == "strong":
            self.weigher.stage_reliable(embedding, labels.labels, labels.reliable)

    @torch.no_grad()
    def _stage_labeled(
        self, items: list[dict[str, Any]], output: SemSegOutput, target: Tensor, labelers: SemSegOutput | None
    ) -> None:
        if self.weigher is None:
            return
        if self.labeled_from == "teacher" and self.teacher is not None:
            output = self.look(items)[1] if labelers is None else labelers
        self.weigher.stage_labeled(output.embedding, output.logits, target)

    def _remember(self, items: list[dict[str, Any]], pseudo: PseudoLabels) -> None:
        share = pseudo.valid.sum().clamp(min=1)
        self.latest |= {"weak": [item["image"] for item in items], "pseudo_labels": pseudo}
        self.latest["scalars"] = {
            "pseudo/confidence": (pseudo.confidence * pseudo.valid).sum() / share,
            "pseudo/weight": (pseudo.weight * pseudo.valid).sum() / share,
            "pseudo/reliable": pseudo.reliable.sum() / share,
            "pseudo/selected": ((pseudo.confidence >= self.threshold) & pseudo.valid).sum() / share,
            "pseudo/weighted": ((pseudo.weight != 1) & pseudo.valid).sum() / share,
        }
