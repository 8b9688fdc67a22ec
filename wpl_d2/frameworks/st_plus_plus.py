"""ST++: a student learns labels that earlier trainings have made once and stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from detectron2.config import configurable
from torch import Tensor
from typing_extensions import override

from ..structures import IGNORE, PseudoLabels
from ..utils.errors import InputError
from ..weighting.scores import chosen_scores
from .base import FRAMEWORK_REGISTRY, Batch, Framework, Items, Terms
from .loss_terms import consistency_term, split
from .mixing import box_masks, draw_boxes
from .pseudo_labels import predict
from .supervised import Supervised

_BETWEEN = "but STPlusPlus weighs pseudo-labels between trainings"


@FRAMEWORK_REGISTRY.register()
class STPlusPlus(Framework):
    """ST and ST++ (Yang et al., CVPR 2022): self-training with strong views, and with reliable images first.

    L is the mean of W * CE over all labeled pixels and all pixels with a stored pseudo-label outside of Cutout's boxes,
    whichever image they are of; without weights W = 1. FRAMEWORK.ALPHA is a further factor of the latter. The trainings
    that make the pseudo-labels, and the weights, are in `wpl_d2.engine.self_training`.

    Differences to the published code, in brackets: half of a step's images are labeled (as many as a permutation of
    both kinds brings); padding has the color that normalization makes zero (black); noise is drawn on the model's
    device, with the boxes, by torch (by the loader, by numpy). Presets say what their networks have otherwise.

    With SOLVER.GRAD_ACCUMULATION the mean is of each micro-batch, which counts by its share of either kind of pixels,
    and so are BN statistics and the hard pixels of OHEM.

    Args:
        cutout: `prob`, `area` and `ratio` of `draw_boxes`.
        framework: the arguments of `Framework`.
    """

    strong_views = 1

    @configurable
    def __init__(self, *, cutout: Mapping[str, Any], **framework: Any) -> None:
        super().__init__(**framework)
        self.cutout = cutout

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        keys = cfg.FRAMEWORK.ST_PLUS_PLUS.CUTOUT
        cutout = {"prob": keys.PROB, "area": tuple(keys.AREA), "ratio": tuple(keys.RATIO)}
        return super().from_config(cfg) | {"cutout": cutout}

    @classmethod
    @override
    def check_config(cls, cfg: Any) -> None:
        super().check_config(cfg)
        keys = cfg.WEIGHTING
        if not keys.ENABLED:
            return
        if keys.NORM != "valid":
            raise InputError(f"WEIGHTING.NORM: {keys.NORM}, but STPlusPlus has one mean of all pixels; set it to valid")
        if learning := [score.kind for score in chosen_scores(keys.KIND) if score.learns]:
            raise InputError(f"WEIGHTING.KIND: {learning[0]} learns in each step, {_BETWEEN}; set another one")
        if keys.PER_CLASS:
            raise InputError(f"WEIGHTING.PER_CLASS: True, whose means move in each step, {_BETWEEN}; set it to False")

    def random_samples(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Cutout's boxes (B, H, W) bool, True inside, and noise for views (B, 3, H, W)."""
        size = views.shape[-2:]
        boxes = box_masks(draw_boxes(len(views), size, **self.cutout, redraw_area=True), size, self.device)
        return boxes, (255 * torch.rand(views.shape, device=self.device)).to(views.dtype)

    @override
    def terms(self, batch: Batch) -> Terms:
        labeled, views = self.stack(batch["labeled"], "image"), []
        if items := self.unlabeled(batch):
            view, pseudo = self._cut_out(self.make_strong_views(items)[:, 0], self._stored(items))
            views = [view]
        images = self.student.normalize(torch.cat([labeled, *views]))
        _, features, output = predict(self.student, images)
        own, *strong = split(output, len(labeled), *map(len, views))
        terms, losses = self.supervised_losses(batch["labeled"], features, own)
        if strong:
            term = consistency_term("loss_unsup", strong[0].logits, pseudo, self.threshold, self.alpha)
            every = torch.cat([terms[0].norm, pseudo.labels != IGNORE])
            terms = [replace(terms[0], norm=every), *terms[1:], replace(term, norm=every)]
        return terms, losses

    def _stored(self, items: Items) -> PseudoLabels:
        """The stored pseudo-labels of the items' views, each of which is certain."""
        if "pseudo_labels" not in items[0]:
            raise InputError(
                "DATASETS.PSEUDO_LABELS: empty, but STPlusPlus learns stored labels; name their folders, or start "
                "`wpl train`, which makes them"
            )
        weight, valid = self.stack(items, "pseudo_weight"), self.stack(items, "valid")
        labels, none = self.stack(items, "pseudo_labels"), torch.zeros_like(valid)
        pseudo = PseudoLabels(labels, torch.ones_like(weight), valid, reliable=none, weight=weight)
        self.record(items, pseudo)
        return pseudo

    @torch.no_grad()
    def _cut_out(self, views: Tensor, pseudo: PseudoLabels) -> tuple[Tensor, PseudoLabels]:
        """Views (B, 3, H, W) with boxes of noise, and pseudo-labels that have none there."""
        boxes, noise = self.random_samples(views)
        labels, valid = pseudo.labels.masked_fill(boxes, IGNORE), pseudo.valid & ~boxes
        return torch.where(boxes[:, None], noise, views), pseudo.replace(labels=labels, valid=valid)


@FRAMEWORK_REGISTRY.register()
class STPlusPlusLabeler(Supervised):
    """`Supervised`, the first training of `STPlusPlus`: its memory bank is for the labels made at its end."""
