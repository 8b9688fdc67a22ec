"""UniMatch: the student's labels of weak views are learned on two strong views and on perturbed features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import configurable
from torch import Tensor, nn
from typing_extensions import override

from ..structures import LossTerm, PseudoLabels
from .base import FRAMEWORK_REGISTRY, Batch, Framework, Items, Terms
from .loss_terms import consistency_term, select, split
from .mixing import CutMixBoxes, cutmix
from .pseudo_labels import Prediction, predict
from .validation import local_batch


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

    @classmethod
    @override
    def smallest_batch(cls, cfg: Any) -> int:
        """As in `Framework`, but the strong views have a forward of their own."""
        together, unlabeled = super().smallest_batch(cfg), local_batch(cfg)[1]
        return min(together, (cls.strong_views or 1) * unlabeled or together)

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
        prediction = Prediction(images[unlabeled], select(features, unlabeled), weak)
        return terms + self.unlabeled_terms(items, prediction, perturbed.logits, views, masks), losses

    def unlabeled_terms(
        self,
        items: Items,
        prediction: Prediction,
        perturbed: Tensor,
        views: Sequence[Tensor],
        masks: Sequence[Tensor],
    ) -> list[LossTerm]:
        """The losses of unlabeled images: that of perturbed features, and one for each strong view.

        Args:
            items: the unlabeled items.
            prediction: the student's on their weak views.
            perturbed: (B, C, H, W) float, its logits of the perturbed features.
            views: (B, 3, H, W) each, the strong ones, in 0..255.
            masks: (B, H, W) bool each, where they are mixed.
        """
        pseudo = self.make_pseudo_labels(items, prediction)
        mixed = [cutmix(view, pseudo, mask) for view, mask in zip(views, masks, strict=True)]
        return [self.consistency("loss_perturbed", perturbed, pseudo, self.alpha / 4), *self._strong_terms(mixed)]

    def _strong_terms(self, mixed: list[tuple[Tensor, PseudoLabels]]) -> list[LossTerm]:
        """One forward of all mixed views (B, 3, H, W); a term for each of them."""
        output = predict(self.student, self.student.normalize(torch.cat([view for view, _ in mixed]))).output
        terms = []
        for (_, pseudo), own in zip(mixed, split(output, *(len(view) for view, _ in mixed)), strict=True):
            self.stage_strong(own.embedding, pseudo)
            terms.append(self.consistency("loss_unsup", own.logits, pseudo, self.alpha / 8))
        return terms

    def consistency(self, name: str, logits: Tensor, pseudo: PseudoLabels, coefficient: float) -> LossTerm:
        """The loss of logits (B, C, H, W) by pseudo-labels; see `consistency_term`."""
        return consistency_term(name, logits, pseudo, self.threshold, coefficient)

    def _append_perturbed(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The feature maps of all images, followed by the same maps with random channels dropped."""
        return {name: torch.cat([clean, self.feature_dropout(clean)]) for name, clean in features.items()}
