"""UniMatch: what the student says of a weak view is learned on two strong views and on perturbed features."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from torch import Tensor

from ..structures import LossTerm, PseudoLabels
from .base import FRAMEWORK_REGISTRY, Batch, Framework, Terms
from .loss_terms import consistency_term, select, split
from .mixing import CutMixBoxes, cutmix


@FRAMEWORK_REGISTRY.register()
class UniMatch(Framework):
    """UniMatch (Yang et al., CVPR 2023): no teacher, the student labels in training mode, with the labeled images.

    L = (Lx + alpha * (s1 / 4 + s2 / 4 + fp / 2)) / 2, each of s1, s2 (CutMixed strong views) and fp (weak view with
    channels of its features dropped) being the mean of W * 1[confidence >= threshold] * CE over the valid pixels.

    Differences to the published code, in brackets: an image is mixed with another one of its batch (with a second view
    of itself, which has to be labeled in a forward more), so that with one image a process there is nothing to mix;
    padding is always at the right and the bottom (mirrored with the image) and has the colour MODEL.PIXEL_MEAN, which
    is 0 after normalization (0 before it); and the learning rate is that of its own step (of the step before).
    """

    strong_views = 2
    mixes = True

    @configurable
    def __init__(self, *, feature_dropout: float, cutmix: CutMixBoxes, **framework: Any) -> None:
        """Put the framework together.

        Args:
            feature_dropout: probability of a channel to be dropped in the perturbed stream.
            cutmix: draws where strong views are mixed.
            framework: the arguments of `Framework`.
        """
        super().__init__(**framework)
        self.feature_dropout = feature_dropout
        self.cutmix_boxes = cutmix

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """See `Framework.from_config`."""
        return super().from_config(cfg) | {
            "feature_dropout": cfg.FRAMEWORK.FEATURE_DROPOUT,
            "cutmix": CutMixBoxes(cfg),
        }

    def terms(self, batch: Batch) -> Terms:
        """One forward of labeled images and weak views, from which the labels come, and one of the strong views."""
        items = self.unlabeled(batch)
        counts = [len(batch["labeled"]), len(items)]
        views = self.stack(items, "strong").unbind(1) if items else ()
        # Drawn before the weigher draws anything, so that a weighted training mixes as its plain twin.
        masks = [self.cutmix_boxes(view) for view in views]
        images = self.images([*batch["labeled"], *items], "image")
        size = (images.shape[-2], images.shape[-1])
        features = self.student.encode(images)
        output = self.student.decode(features, size, perturb=self._append_perturbed if items else None)
        labeled, *others = split(output, *(counts * 2 if items else counts[:1]))
        terms, losses = self.supervised(batch["labeled"], features, labeled, coefficient=0.5)
        if not items:
            return terms, losses
        # Of the labeled images' perturbed features the decoder's BN statistics alone are of use.
        weak, _, perturbed = others
        labels = self.resolve(items, select(features, slice(counts[0], None)), weak)
        mixed = [cutmix(view, labels, mask) for view, mask in zip(views, masks, strict=True)]
        terms.append(consistency_term("loss_perturbed", perturbed.logits, labels, self.threshold, self.alpha / 4))
        return terms + self._strong_terms(mixed), losses

    def _strong_terms(self, mixed: list[tuple[Tensor, PseudoLabels]]) -> list[LossTerm]:
        """One forward of all mixed views (B, 3, H, W); a term for each of them."""
        images = self.student.normalize(torch.cat([view for view, _ in mixed]))
        output = self.student.decode(self.student.encode(images), (images.shape[-2], images.shape[-1]))
        terms = []
        for (_, pseudo), own in zip(mixed, split(output, *(len(view) for view, _ in mixed)), strict=True):
            self.stage_strong(own.embedding, pseudo)
            terms.append(consistency_term("loss_unsup", own.logits, pseudo, self.threshold, self.alpha / 8))
        return terms

    def _append_perturbed(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Behind the features of all images the same once more, with random channels dropped."""
        return {name: torch.cat([clean, F.dropout2d(clean, self.feature_dropout)]) for name, clean in features.items()}
