"""PC2Seg: two views of an image shall have the same probabilities, and pixels representations of their own."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from torch import Tensor, nn
from typing_extensions import override

from ..losses import info_nce, squared_distance
from ..structures import IGNORE
from ..weighting.sampling import at_cells
from .base import FRAMEWORK_REGISTRY, Batch, Framework, Terms
from .loss_terms import consistency_term, select, split
from .pseudo_labels import Prediction, predict
from .random_samples import random_index, uniform
from .validation import per_micro_batch

_log = logging.getLogger(__name__)


@FRAMEWORK_REGISTRY.register()
class PC2Seg(Framework):
    """PC2Seg (Zhong et al., ICCV 2021): a reconstruction of what could be read, which is the abstract and no code.

    L = Ls + alpha * Lu + contrast_weight * Lc. As stated there, Lu is a pixel-level L2 loss in label space between two
    augmentations of an image, Lc a contrastive loss of pixels in feature space, and negatives are sampled so that few
    of them are false. All else is chosen here:

    - the augmentations are a weak view and a strong view (color) of the same crop, and no images are mixed;
    - Lu is the mean over the valid pixels of W * 1[confidence >= threshold] * ||p_strong - p_weak||^2. p_weak has no
      gradient, and comes from the forward that trains the labeled images; the presets' threshold is 0;
    - Lc is that of `PixelPairs`, on representations of U2PL's kind, and has no weights;
    - alpha, contrast_weight, the numbers of anchors and negatives, and the temperature.

    With SOLVER.GRAD_ACCUMULATION Lc is of each micro-batch, with its part of the anchors.

    Args:
        contrast: Lc.
        contrast_weight: its factor.
        framework: the arguments of `Framework`.
    """

    has_representation = True
    strong_views = 1
    separate_forwards = True

    @configurable
    def __init__(self, *, contrast: PixelPairs, contrast_weight: float, **framework: Any) -> None:
        super().__init__(**framework)
        self.contrast = contrast
        self.contrast_weight = contrast_weight
        _log.info("PC2Seg is a reconstruction from its abstract: see wpl_d2.frameworks.PC2Seg for what is chosen")

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        keys = cfg.FRAMEWORK.PC2SEG
        anchors = per_micro_batch(cfg, keys.ANCHORS)
        return super().from_config(cfg) | {
            "contrast": PixelPairs(anchors, keys.NEGATIVES, keys.TEMPERATURE),
            "contrast_weight": keys.CONTRAST_WEIGHT,
        }

    def random_samples(self) -> PairSamples:
        """A step's random choices."""
        return self.contrast.random_samples(self.device)

    @override
    def terms(self, batch: Batch) -> Terms:
        items, count, samples = self.unlabeled(batch), len(batch["labeled"]), self.random_samples()
        images = self.images([*batch["labeled"], *items], "image")
        _, features, output = predict(self.student, images)
        labeled, weak = split(output, count, len(items))
        terms, losses = self.supervised_losses(batch["labeled"], features, labeled)
        assert labeled.representation is not None, "a model in training mode has it"
        if not items:
            # DDP waits for a gradient of every parameter.
            return terms, losses | {"loss_contrast": 0.0 * labeled.representation.float().mean()}
        own = Prediction(images[count:], select(features, slice(count, None)), weak)
        pseudo = self.make_pseudo_labels(items, own)
        views = self.make_strong_views(items)[:, 0]
        strong = predict(self.student, self.student.normalize(views)).output
        assert strong.representation is not None and weak.representation is not None
        self.stage_strong(strong.embedding, pseudo)
        term = consistency_term("loss_unsup", strong.logits, pseudo, self.threshold, self.alpha)
        probability = weak.logits.detach().float().softmax(dim=1)
        terms.append(replace(term, target=probability, pixel_loss=squared_distance))
        labels = at_cells(pseudo.labels, *strong.representation.shape[-2:])
        loss = self.contrast(strong.representation, weak.representation.detach(), labels, samples)
        return terms, losses | {"loss_contrast": self.contrast_weight * loss}


class PairSamples(NamedTuple):
    """Uniform samples in [0, 1): `anchors` (A,) and `negatives` (A, M)."""

    anchors: Tensor
    negatives: Tensor


class PixelPairs(nn.Module):
    """The mean of `info_nce` over random cells of the first view.

    A cell's positive is the same cell in the second view, its negatives are random cells of the second view, of any
    image of the batch, that have another label. An anchor without negatives does not count.
    """

    def __init__(self, anchors: int, negatives: int, temperature: float) -> None:
        """Store the numbers.

        Args:
            anchors: A.
            negatives: of each anchor, M, sampled with replacement.
            temperature: of `info_nce`.
        """
        super().__init__()
        self.shape = anchors, negatives
        self.temperature = temperature

    def random_samples(self, device: torch.device) -> PairSamples:
        """A step's random samples."""
        return PairSamples(uniform(self.shape[0], device=device), uniform(*self.shape, device=device))

    def forward(self, first: Tensor, second: Tensor, labels: Tensor, samples: PairSamples) -> Tensor:
        """The loss, a float32 scalar, 0 where no anchor has negatives.

        Args:
            first: (B, D, h, w) representation with a gradient.
            second: (B, D, h, w) representation.
            labels: (B, h, w) int64, `IGNORE` where a cell is neither anchor nor negative.
            samples: of `random_samples`.
        """
        flat = labels.flatten()
        # In the order of their labels, so that the cells of another label are all but one range.
        ordered, order = flat.sort(stable=True)
        known = (flat != IGNORE).sum()
        anchors = order[random_index(known, samples.anchors)]
        begin = torch.searchsorted(ordered, flat[anchors])
        own = torch.searchsorted(ordered, flat[anchors], right=True) - begin
        others = (known - own).clamp(min=0)
        place = random_index(others[:, None], samples.negatives)
        place = place + own[:, None] * (place >= begin[:, None])
        negatives = order[place.clamp(max=len(order) - 1)]
        query, key = (maps.permute(0, 2, 3, 1).flatten(0, 2) for maps in (first, F.normalize(second.float(), dim=1)))
        losses = info_nce(query[anchors][:, None], key[anchors], key[negatives][:, None], self.temperature)
        usable = others > 0
        return losses.masked_fill(~usable, 0.0).sum() / usable.sum().clamp(min=1)
