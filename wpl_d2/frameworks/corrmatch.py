"""CorrMatch: UniMatch, whose labels spread over an image by how alike its cells are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from torch import Tensor
from typing_extensions import override

from ..losses import kl_divergence
from ..modeling.heads import Correlation, CorrelationHead
from ..structures import IGNORE, LossTerm, PseudoLabels, SemSegOutput
from ..utils.comm import all_gather_rows
from ..utils.cpu_speed import best_class
from ..weighting import Evidence
from ..weighting.indices import arange
from ..weighting.sampling import at_cells
from .base import FRAMEWORK_REGISTRY, Batch, Items, Terms
from .loss_terms import supervised_term
from .mixing import cutmix
from .pseudo_labels import Prediction, predict
from .random_samples import nth_true, random_index, uniform
from .unimatch import UniMatch

_log = logging.getLogger(__name__)


@FRAMEWORK_REGISTRY.register()
class CorrMatch(UniMatch):
    """CorrMatch (Sun et al., CVPR 2024): `UniMatch` with one strong view, and correlation maps (`CorrelationHead`).

    L = (Lx / 2 + Lxc / 2 + alpha * (s + KL + fp + Luc) / 4) / 2. Lx, s and fp are UniMatch's, Lxc and Luc the cross
    entropies of propagated logits on labeled and on unlabeled images: of each cell the mean of all cells' logits, which
    get no gradient, by its correlation map. KL is that of the probabilities on the strong view and on the weak ones,
    mixed as the view is. s, fp and Luc are means over the valid pixels of W * 1[confidence >= t] * CE, and so is KL
    without W. Before they are weighed, pseudo-labels spread over regions (`propagate_regions`) of `regions` random
    cells' maps. t begins with FRAMEWORK.THRESHOLD and is a running mean of `ClassPeaks`.

    It is written from a description of the method: its code may not be used here, and of its paper no more than the
    abstract could be read. Choices where that leaves any:

    - a cell's map, a row of the correlation, is what sums to one; the convolutions are PyTorch's, of which the 3x3 one
      has no bias before its norm; one forward of the head has labeled and weak images, another one the strong views;
    - Luc is the mean of that on the weak views, by their labels, and that on the strong ones, by the mixed labels;
    - KL is sum p_weak * log(p_weak / p_strong), without a gradient of p_weak;
    - cells of padding are on no map, and random cells are valid ones, drawn with replacement;
    - a region and its shares are made of cells; where regions overlap, the class decides whose map is the highest;
    - a label that spreads has the confidence t where it is new to the pixel, and at least t elsewhere;
    - t compares the labels of the next step with the highest confidences of this one, before they spread;
    - the hard pixels of FRAMEWORK.OHEM are those of Lx and of Lxc, each its own.

    TEST.PSEUDO_LABELS, and the fit of the score `calibrated`, see labels before they spread.

    With SOLVER.GRAD_ACCUMULATION t moves with the whole step, and the same is of each micro-batch as in `UniMatch`.

    Args:
        num_classes: C.
        regions: of each image and step.
        momentum: share of t that stays in a step.
        unimatch: the arguments of `UniMatch`.
    """

    strong_views = 1
    method_head = "CorrelationHead"
    threshold: Tensor
    _weak: Correlation
    selection = "CorrMatch's threshold, which begins with FRAMEWORK.THRESHOLD"

    @configurable
    def __init__(self, *, num_classes: int, regions: int, momentum: float, **unimatch: Any) -> None:
        super().__init__(**unimatch)
        first = self.threshold
        del self.threshold  # `Framework`'s, a number that never moves
        self.register_buffer("threshold", torch.tensor(float(first)))
        self.peaks = ClassPeaks(num_classes)
        self.regions = regions
        self.momentum = momentum
        _log.info("CorrMatch is in parts a reconstruction: see wpl_d2.frameworks.CorrMatch for what is chosen")

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        keys = cfg.FRAMEWORK.CORRMATCH
        return super().from_config(cfg) | {
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "regions": keys.REGIONS,
            "momentum": keys.MOMENTUM,
        }

    def random_cells(self, images: int) -> Tensor:
        """A step's random choices beside mixing: (images, regions) float in [0, 1), places among the valid cells."""
        return uniform(images, self.regions, device=self.device)

    @override
    def terms(self, batch: Batch) -> Terms:
        # First, since the weigher draws for labeled images too.
        self._places = self.random_cells(len(self.unlabeled(batch)))
        terms = super().terms(batch)
        del self._weak
        return terms

    @override
    def supervised_losses(
        self,
        items: Items,
        features: dict[str, Tensor],
        output: SemSegOutput,
        coefficient: float = 1.0,
        teacher_output: SemSegOutput | None = None,
    ) -> Terms:
        terms, losses = super().supervised_losses(items, features, output, coefficient / 2, teacher_output)
        head, count = self._head(), len(items)
        correlation = head(features)
        # For `unlabeled_terms`, whose images are behind the labeled ones.
        self._weak = correlation.select(slice(count, None))
        logits = head.propagate(correlation.select(slice(count)), output.logits, self.stack(items, "valid"))
        own = supervised_term(
            "loss_correlation", logits, terms[0].target, self.ohem, coefficient / 2, self.class_weights
        )
        return [*terms, own], losses

    @override
    def unlabeled_terms(
        self,
        items: Items,
        prediction: Prediction,
        perturbed: Tensor,
        views: Sequence[Tensor],
        masks: Sequence[Tensor],
    ) -> list[LossTerm]:
        head, (view,), (mask,) = self._head(), views, masks
        weak = prediction.output.logits.detach()
        pseudo = self.make_pseudo_labels(items, prediction)
        # One mixing for the images and for the probabilities that KL compares.
        both = torch.cat([view.float(), weak.float().softmax(dim=1)], dim=1)
        both, labels = cutmix(both, pseudo, mask)
        images, target = both.tensor_split([view.shape[1]], dim=1)
        _, features, strong = predict(self.student, self.student.normalize(images))
        self.stage_strong(strong.embedding, labels)
        propagated = (
            (head.propagate(self._weak, weak, pseudo.valid), pseudo),
            (head.propagate(head(features), strong.logits, labels.valid), labels),
        )
        unsup = self.consistency("loss_unsup", strong.logits, labels, self.alpha / 8)
        unweighted = torch.ones_like(labels.weight)
        return [
            unsup,
            replace(unsup, name="loss_kl", target=target, pixel_loss=kl_divergence, weight=unweighted),
            self.consistency("loss_perturbed", perturbed, pseudo, self.alpha / 8),
            *(self.consistency("loss_propagated", *pair, self.alpha / 16) for pair in propagated),
        ]

    @override
    def refine(self, evidence: Evidence) -> Evidence:
        evidence = super().refine(evidence)
        pseudo, classes, maps = evidence.pseudo, evidence.logits.shape[1], self._random_maps(evidence.pseudo.valid)
        self.peaks.stage(pseudo.confidence, pseudo.labels)
        spread = propagate_regions(pseudo, maps, self.threshold, classes, self._head().align_corners)
        return replace(evidence, pseudo=spread)

    @torch.no_grad()
    @override
    def after_step(self) -> None:
        super().after_step()
        self.threshold.copy_(self.peaks.follow(self.threshold, self.momentum))

    def _head(self) -> CorrelationHead:
        head = self.student.method_head
        assert isinstance(head, CorrelationHead)
        return head

    def _random_maps(self, valid: Tensor) -> Tensor:
        """The maps (B, regions, h, w) of random cells of the weak views that are valid, (B, H, W) bool."""
        inside = at_cells(valid, *self._weak.query.shape[-2:])
        flat = inside.flatten(1)
        cells = nth_true(flat, random_index(flat.sum(dim=1, keepdim=True), self._places))
        return self._head().maps(self._weak, cells, inside)


@torch.no_grad()
def propagate_regions(
    pseudo: PseudoLabels, maps: Tensor, threshold: Tensor, num_classes: int, align_corners: bool
) -> PseudoLabels:
    """Give regions, in which labels are confident and agree, one label each.

    A map's region are its cells above 0.5. Of these the share that is confident must be at least the threshold, and the
    share of the class that most of them have above it. Then all of the region gets that class.

    Args:
        pseudo: the labels.
        maps: (B, N, h, w) float, from 0 to 1, 0 in padding.
        threshold: scalar, the least confidence of a label that trains.
        num_classes: C.
        align_corners: for the bilinear resize to pixels.

    Returns:
        the labels; what a region changes has the threshold as its confidence, and what it confirms at least that.
    """
    size, pixels = maps.shape[-2:], pseudo.labels.shape[-2:]
    labels, confidence = (at_cells(field, *size).flatten(1) for field in (pseudo.labels, pseudo.confidence))
    maps = maps.flatten(2)
    members = (maps > 0.5) & (labels != IGNORE)[:, None]
    columns = [labels[..., None] == arange(0, num_classes, device=labels.device), (confidence >= threshold)[..., None]]
    # Autocast would round the counts to 8 bits.
    with torch.autocast(maps.device.type, enabled=False):
        counts = members.float() @ torch.cat(columns, dim=2).float()
    of_class, confident = counts.split([num_classes, 1], dim=2)
    most, region_class = of_class.max(dim=2)
    total = of_class.sum(dim=2).clamp(min=1)
    accepted = (confident[..., 0] / total >= threshold) & (most / total > threshold)
    # Of all regions of a class the highest map: C maps to resize, not N.
    highest = maps.new_zeros(len(maps), num_classes, maps.shape[2])
    place = region_class[..., None].expand_as(maps)
    highest.scatter_reduce_(1, place, maps * accepted[..., None], "amax")
    value, spread = best_class(
        F.interpolate(highest.unflatten(2, size), pixels, mode="bilinear", align_corners=align_corners)
    )
    entered = (value > 0.5) & (pseudo.labels != IGNORE)
    changed = entered & (spread != pseudo.labels)
    confidence = pseudo.confidence.masked_fill(changed, 0.0)
    return pseudo.replace(
        labels=torch.where(changed, spread, pseudo.labels),
        confidence=torch.where(entered, confidence.maximum(threshold), confidence),
    )


class ClassPeaks:
    """The mean, over the classes that a step's labels have, of the highest confidence of each."""

    def __init__(self, num_classes: int) -> None:
        """Know of no labels yet of C classes."""
        self.num_classes = num_classes
        self._staged: list[Tensor] = []

    @torch.no_grad()
    def stage(self, confidence: Tensor, labels: Tensor) -> None:
        """Stage labels of the current step.

        Args:
            confidence: (B, H, W) float32, above 0.
            labels: (B, H, W) int64 class ids or `IGNORE`.
        """
        peaks = confidence.new_zeros(self.num_classes + 1)
        peaks.scatter_reduce_(0, labels.flatten().clamp(max=self.num_classes), confidence.flatten(), "amax")
        self._staged.append(peaks[: self.num_classes])

    def follow(self, value: Tensor, momentum: float) -> Tensor:
        """A running mean after what was staged on all ranks; itself if that was nothing. A collective call.

        Args:
            value: the running mean before, a scalar.
            momentum: share of it that stays.
        """
        if not self._staged:
            return value
        peaks = all_gather_rows(torch.stack(self._staged)).amax(dim=0)
        self._staged = []
        count = (peaks > 0).sum()
        return value.lerp(peaks.sum() / count.clamp(min=1), (1 - momentum) * (count > 0))
