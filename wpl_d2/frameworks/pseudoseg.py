"""PseudoSeg: the decoder and the class activation maps of an image classifier label weak views together, softly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from torch import Tensor
from typing_extensions import override

from ..losses import soft_cross_entropy
from ..modeling import SelfAttentionCAM
from ..structures import IGNORE, LossTerm
from ..utils.errors import InputError
from .base import FRAMEWORK_REGISTRY, Batch, Framework, Items, Terms
from .loss_terms import consistency_term, supervised_term
from .mixing import square_boxes
from .pseudo_labels import Prediction, evaluation_mode, predict


@FRAMEWORK_REGISTRY.register()
class PseudoSeg(Framework):
    """PseudoSeg (Zou et al., ICLR 2021): soft pseudo-labels of two segmenters, learned on a strong view with a cutout.

    L = CE(z) + CE(s) + BCE(image labels) + alpha * Lu, the first three on labeled images. z are the decoder's logits, s
    those of `SelfAttentionCAM`, and image labels say which classes, but class 0, the background, a crop shows. Lu is
    the mean of W * CE(z of the strong view, p) over the valid pixels outside of the cutout, and p the mean of
    softmax(z / r) and softmax(s / r) of the weak view, to the power of 1 / temperature and normalized, where r is the
    root mean square of z and s over the batch. Of the weak view z comes from a forward in training mode, and s from
    features in evaluation mode. W is that of the most probable class of p. With FRAMEWORK.THRESHOLD above 0 pixels of
    a lower highest p do not train.

    Differences to the published code, in brackets: losses are means over pixels of the image's size (Lu: of the
    decoder's, to which s is resized and `valid` reduced); no cell of a weak view is left out of the attention because
    the strong view is cut there (is); padding is always at the right and the bottom (mirrored with the image); labels
    that an image must have for a map of its own come from the classifier alone (or from annotation); and labeled
    images have one forward for all of their losses (two of the same values, each of which moves BN's statistics).
    Where a data set has no background, what no other class claims is class 0 all the same.

    TEST.PSEUDO_LABELS judges the decoder's labels. With SOLVER.GRAD_ACCUMULATION these are of each micro-batch:
    what is so in `MeanTeacher`, r, and the share of its pixels, for which the cutout counts too.

    Args:
        cutout: side in pixels of the square that is cut out of a strong view.
        temperature: see above; below 1 labels are sharpened.
        framework: the arguments of `Framework`.
    """

    strong_views = 1
    method_head = "SelfAttentionCAM"
    separate_forwards = True

    @configurable
    def __init__(self, *, cutout: int, temperature: float, **framework: Any) -> None:
        super().__init__(**framework)
        self.cutout = cutout
        self.temperature = temperature

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        keys = cfg.FRAMEWORK.PSEUDOSEG
        return super().from_config(cfg) | {"cutout": keys.CUTOUT, "temperature": keys.TEMPERATURE}

    @classmethod
    @override
    def check_config(cls, cfg: Any) -> None:
        super().check_config(cfg)
        if cfg.PSEUDO_LABEL.REFINE != "none":
            raise InputError(
                f"PSEUDO_LABEL.REFINE: {cfg.PSEUDO_LABEL.REFINE} corrects classes, but PseudoSeg learns probabilities; "
                "set it to none"
            )

    def random_samples(self, views: Tensor) -> Tensor:
        """A step's random choices: (B, H, W) bool, what is cut out of views (B, 3, H, W)."""
        return square_boxes(len(views), views.shape[-2:], self.cutout, self.device)

    @torch.no_grad()
    @override
    def label(self, items: Items) -> Prediction:
        """The decoder's prediction for weak views, with the logits of both segmenters."""
        images = self.images(items, "image")
        with evaluation_mode(self.student):
            features = self.student.encode(images)
        head, valid = self._head(), self.stack(items, "valid")
        maps = self._resize(head(features, head.classify(features) >= 0, valid), images)
        prediction = predict(self.student, images)
        fused = fuse(prediction.output.logits, maps, self.temperature)
        return prediction._replace(output=prediction.output._replace(logits=fused))

    @override
    def terms(self, batch: Batch) -> Terms:
        labeled, items = batch["labeled"], self.unlabeled(batch)
        # First, since the weigher draws for labeled images too.
        unlabeled = self._unlabeled_terms(items) if items else []
        _, features, output = predict(self.student, self.images(labeled, "image"))
        terms, losses = self.supervised_losses(labeled, features, output)
        target = terms[0].target
        head, shown = self._head(), shown_classes(target, output.logits.shape[1])
        losses["loss_image_labels"] = F.binary_cross_entropy_with_logits(head.classify(features).float(), shown)
        logits = self._resize(head(features, shown, self.stack(labeled, "valid")), target)
        terms.append(supervised_term("loss_cam", logits, target, self.ohem, class_weights=self.class_weights))
        return terms + unlabeled, losses

    def _unlabeled_terms(self, items: Items) -> list[LossTerm]:
        views = self.make_strong_views(items)[:, 0]
        boxes = self.random_samples(views)
        prediction = self.label(items)
        pseudo, probability = self.make_pseudo_labels(items, prediction), prediction.output.logits.softmax(dim=1)
        shown = pseudo.valid & ~boxes
        labels, reliable = pseudo.labels.masked_fill(~shown, IGNORE), pseudo.reliable & shown
        # Normalized, the mean color is 0.
        images = self.student.normalize(views).masked_fill(boxes[:, None], 0.0)
        output = predict(self.student, images).output
        seen = pseudo.replace(valid=shown, labels=labels, reliable=reliable)
        self.stage_strong(output.embedding, seen)
        term = consistency_term("loss_unsup", output.logits, seen, self.threshold, self.alpha)
        return [replace(term, target=probability, pixel_loss=soft_cross_entropy)]

    def _head(self) -> SelfAttentionCAM:
        head = self.student.method_head
        assert isinstance(head, SelfAttentionCAM)
        return head

    def _resize(self, logits: Tensor, like: Tensor) -> Tensor:
        size, align = like.shape[-2:], self._head().align_corners
        return F.interpolate(logits, size, mode="bilinear", align_corners=align)


@torch.no_grad()
def shown_classes(target: Tensor, num_classes: int) -> Tensor:
    """Which classes but class 0 are in label maps.

    Args:
        target: (B, H, W) int64 class ids or `IGNORE`.
        num_classes: C.

    Returns:
        (B, C - 1) float32, 1 or 0.
    """
    shown = torch.zeros(len(target), num_classes + 1, device=target.device)
    return shown.scatter_(1, target.flatten(1).clamp(max=num_classes), 1.0)[:, 1:num_classes]


def fuse(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Calibrate two segmenters' logits by their common scale, and average and sharpen their probabilities.

    Args:
        first: logits (B, C, H, W) float.
        second: likewise.
        temperature: below 1 the average is sharpened.

    Returns:
        logits (B, C, H, W) float32 of the fused probabilities.
    """
    both = torch.stack([first, second]).float()
    both = both * (both.square().mean() + 1e-8).rsqrt()
    return torch.logaddexp(*both.log_softmax(dim=2)) / temperature
