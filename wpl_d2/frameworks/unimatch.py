"""UniMatch: the student's labels of weak views are learned on two strong views and on perturbed features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from detectron2.config import configurable
from torch import Tensor, nn
from typing_extensions import override

from ..structures import LossTerm, PseudoLabels
from .base import FRAMEWORK_REGISTRY, Batch, Framework, Items, Terms
from .loss_terms import consistency_term, select, split
from .mixing import CutMixBoxes, cutmix
from .pseudo_labels import Prediction, predict


@FRAMEWORK_REGISTRY.register()
class UniMatch(Framework):
    """UniMatch (Yang et al., CVPR 2023): the student makes the pseudo-labels, in the forward of the labeled images.

    L = (Lx + alpha * (s1 / 4 + s2 / 4 + fp / 2)) / 2, each of s1, s2 (CutMixed strong views) and fp (weak view with
    channels of its features dropped) being the mean of W * 1[confidence >= threshold] * CE over the valid pixels.

    Differences to the published code, in brackets: an image is mixed with another one of its batch (with a second view
    of itself, which has to be labeled in a forward more), so that with one image a process there is nothing to mix;
    padding is always at the right and the bottom (mirrored with the image) and has the color MODEL.PIXEL_MEAN, which
    is 0 after normalization (0 before it); and the learning rate is that of its own step (of the step before).

    With SOLVER.GRAD_ACCUMULATION the same is of each micro-batch as in `MeanTeacher`.

    Args:
        feature_dropout: probability with which a feature channel is dropped in the perturbed stream.
        cutmix: draws the boxes in which strong views are mixed.
        framework: the arguments of `Framework`.
    """

    strong_views = 2
    mixes = True

    @configurable
    def __init__(self, *, feature_dropout: float, cutmix: CutMixBoxes, **framework: Any) -> None:
        super().__init__(**framework)
        self.feature_dropout = nn.Dropout2d(feature_dropout)
        self.random_samples = cutmix

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        return super().from_config(cfg) | {
            "feature_dropout": cfg.FRAMEWORK.FEATURE_DROPOUT,
            "cutmix": CutMixBoxes(cfg),
        }

    @override
    def terms(self, batch: Batch) -> Terms:
        items = self.unlabeled(batch)
        counts = [len(batch["labeled"]), len(items)]
        views = self.make_strong_views(items).unbind(1) if items else ()
        masks = self.random_samples(views)
        images = self.images([*batch["labeled"], *items], "image")
        size = (images.shape[-2], images.shape[-1])
        features = self.student.encode(images)
        output = self.student.decode(features, size, perturb=self._append_perturbed if items else None)
        labeled, *others = split(output, *(counts * 2 if items else counts[:1]))
        terms, losses = self.supervised_losses(batch["labeled"], features, labeled, coefficient=0.5)
        if not items:
            return terms, losses
        # The labeled images' perturbed features have no loss, but enter the decoder's BN statistics.
        weak, _, perturbed = others
        unlabeled = slice(counts[0], None)
        known = self.labelings(items, Prediction(images[unlabeled], select(features, unlabeled), weak))
        terms += [labeling.term("loss_perturbed", perturbed.logits, 1 / 4) for labeling in known]
        mixed = [_mix(view, mask, known) for view, mask in zip(views, masks, strict=True)]
        return terms + self._strong_terms(mixed), losses

    def labelings(self, items: Items, prediction: Prediction) -> list[Labeling]:
        """All labels of the weak views from which the student learns: its own, of `prediction`."""
        return [Labeling(self.make_pseudo_labels(items, prediction), self.threshold, self.alpha)]

    def _strong_terms(self, mixed: list[tuple[Tensor, list[Labeling]]]) -> list[LossTerm]:
        """One forward of all mixed views (B, 3, H, W); a term for each of them and each of its labelings."""
        output = predict(self.student, self.student.normalize(torch.cat([view for view, _ in mixed]))).output
        terms = []
        for (_, known), own in zip(mixed, split(output, *(len(view) for view, _ in mixed)), strict=True):
            self.stage_strong(own.embedding, known[0].pseudo)
            terms += [labeling.term("loss_unsup", own.logits, 1 / 8) for labeling in known]
        return terms

    def _append_perturbed(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The feature maps of all images, followed by the same maps with random channels dropped."""
        return {name: torch.cat([clean, self.feature_dropout(clean)]) for name, clean in features.items()}


class Labeling(NamedTuple):
    """Labels of weak views, and how the student learns them.

    Attributes:
        pseudo: the labels.
        threshold: least confidence of those that train.
        alpha: factor of their losses.
        by_image: whether the losses of an image are also multiplied by the mean confidence of its valid pixels.
    """

    pseudo: PseudoLabels
    threshold: float | Tensor
    alpha: float
    by_image: bool = False

    def term(self, name: str, logits: Tensor, share: float) -> LossTerm:
        """The loss `name` of logits (B, C, H, W), with a share of `alpha`."""
        pseudo = self.pseudo
        term = consistency_term(name, logits, pseudo, self.threshold, self.alpha * share)
        if not self.by_image:
            return term
        total = (pseudo.confidence * pseudo.valid).sum(dim=(1, 2), keepdim=True)
        return replace(term, mask=term.mask * total / pseudo.valid.sum(dim=(1, 2), keepdim=True).clamp(min=1))


def _mix(views: Tensor, masks: Tensor, known: list[Labeling]) -> tuple[Tensor, list[Labeling]]:
    """Views (B, 3, H, W) mixed by `cutmix`, and their labelings likewise."""
    mixed = [cutmix(views, labeling.pseudo, masks) for labeling in known]
    return mixed[0][0], [labeling._replace(pseudo=own) for labeling, (_, own) in zip(known, mixed, strict=True)]
