"""U2PL: pixels with uncertain pseudo-labels train as negatives of the classes that they are certainly not of."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import configurable
from torch import Tensor
from typing_extensions import override

from ...losses import cross_entropy, entropy
from ...structures import IGNORE, LossTerm, PseudoLabels, SemSegOutput
from ...weighting.sampling import at_cells
from ..base import FRAMEWORK_REGISTRY, Batch, Terms
from ..loss_terms import split
from ..mixing import cutmix, half_boxes
from ..pseudo_labels import predict
from ..teacher_student import TeacherStudent
from .pixel_contrast import Cells, ContrastSamples, PixelContrast


@FRAMEWORK_REGISTRY.register()
class U2PL(TeacherStudent):
    """U2PL (Wang et al., CVPR 2022): pixels of low entropy train with their pseudo-labels, the others as negatives.

    L = Ls + alpha * Lu + contrast_weight * Lc. The teacher labels the weak views, half of all batches are CutMixed, and
    a second forward of the teacher, in training mode, gives the entropy of the mixed images. With a(t) falling linearly
    from `unreliable` to 0 percent, Lu = V / K * mean of W * CE over the K of V valid pixels whose entropy is below its
    percentile 100 - a(t); and Lc (`PixelContrast`) takes pixels up to the percentile a(t) as certain, and from
    100 - a(t) on as uncertain.

    Differences to the published code, in brackets. Corrected by default, and as published with
    FRAMEWORK.U2PL.CONTRAST_AS_PUBLISHED: all classes of a batch have anchors, labeled pixels are negatives too, and
    each image has only its own labels (the first one has those of all, the others none). Always: padding is at the
    right and the bottom (on all sides), has no label and does not enter the percentiles (is background); resized images
    (INPUT.RESIZE bilinear) are rounded to whole numbers; t counts steps (epochs); labels and probabilities are read at
    the pixel nearest to a cell of the representation (the one at or before it, and the classifier's own cells); and in
    the burn-in the teacher is a copy of the student (it keeps its initial weights, and with them moves the BN
    statistics that it labels the first images with, once it has the student's weights). Lc is averaged over processes
    once: the published code averages it itself and DDP does so again, so that on its 4 GPUs (Cityscapes: 8) it counts
    as with FRAMEWORK.U2PL.CONTRAST_WEIGHT 0.25 (0.125) here.

    With SOLVER.GRAD_ACCUMULATION these are of each micro-batch: what is so in `MeanTeacher`, the teacher's BN
    statistics, the draw whether to mix, percentiles, V / K, and Lc with its classes, anchors and positives. The queues
    get the negatives of all, each with its part of KEYS_PER_STEP, after the step.

    Args:
        contrast: the contrastive loss.
        contrast_weight: its factor.
        unreliable: percent of the pixels that are unreliable at the first step; it falls to 0 at the last one.
        cutmix_prob: probability that a batch is mixed.
        max_iter: number of training steps.
        framework: the arguments of `TeacherStudent`.
    """

    teacher_trains = True
    has_representation = True
    strong_views = 1
    mixes = True
    selection = "an entropy below the batch's percentile (FRAMEWORK.U2PL.UNRELIABLE)"

    @configurable
    def __init__(
        self,
        *,
        contrast: PixelContrast,
        contrast_weight: float,
        unreliable: float,
        cutmix_prob: float,
        max_iter: int,
        **framework: Any,
    ) -> None:
        super().__init__(**framework)
        self.contrast = contrast
        self.contrast_weight = contrast_weight
        self.unreliable = unreliable
        self.cutmix_prob = cutmix_prob
        self.max_iter = max_iter

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        return super().from_config(cfg) | {
            "contrast": PixelContrast(cfg),
            "contrast_weight": cfg.FRAMEWORK.U2PL.CONTRAST_WEIGHT,
            "unreliable": cfg.FRAMEWORK.U2PL.UNRELIABLE,
            "cutmix_prob": cfg.FRAMEWORK.CUTMIX.PROB,
            "max_iter": cfg.SOLVER.MAX_ITER,
        }

    @property
    def unreliable_percent(self) -> float:
        """Percent of the pixels that are unreliable in the current step."""
        return self.unreliable * max(0.0, 1 - self.iteration / self.max_iter)

    def random_samples(self, views: Tensor) -> tuple[ContrastSamples, Tensor]:
        """A step's random choices: those of Lc, and (B, H, W) bool where strong views (B, 3, H, W) are mixed."""
        contrast = self.contrast.random_samples()
        return contrast, half_boxes(len(views), views.shape[-2:], self.cutmix_prob, self.device)

    @override
    def terms(self, batch: Batch) -> Terms:
        labeled, items = batch["labeled"], self.unlabeled(batch)
        images, teacher_output = self.images(labeled, "image"), None
        if items:
            views = self.make_strong_views(items)[:, 0]
            samples, boxes = self.random_samples(views)
            prediction, teacher_output = self.teacher_forwards(items, labeled)
            mixed, pseudo = self._mix(self.make_pseudo_labels(items, prediction), views, boxes)
            images = torch.cat([images, mixed])
        _, features, output = predict(self.student, images)
        own, strong = split(output, len(labeled), len(items))
        terms, losses = self.supervised_losses(labeled, features, own, teacher_output=teacher_output)
        if not items:
            # DDP waits for a gradient of every parameter.
            return terms, losses | {"loss_contrast": 0.0 * _representation(output).float().mean()}
        self.stage_strong(strong.embedding, pseudo)
        judged = self._judge(images)
        uncertainty = entropy(judged.logits[len(labeled) :])
        percent = self.unreliable_percent
        low, high = percentiles(uncertainty, pseudo.valid, percent, 100 - percent)
        certain, uncertain = pseudo.valid & (uncertainty <= low), pseudo.valid & (uncertainty >= high)
        cells = _cells(output, judged, terms[0].target, pseudo.labels, certain, uncertain)
        kept = pseudo.valid & (uncertainty < high)
        self.last_step.scalars["pseudo/selected"] = kept.sum() / pseudo.valid.sum().clamp(min=1)
        terms.append(self._consistency(strong.logits, pseudo, kept))
        losses["loss_contrast"] = self.contrast_weight * self.contrast(cells, samples)
        return terms, losses

    @torch.no_grad()
    @override
    def after_step(self) -> None:
        super().after_step()
        self.contrast.after_step()

    @override
    def ineffective_parts(self) -> list[str]:
        if self.contrast.queues.pushed.any():
            return []
        return ["FRAMEWORK.U2PL.NEGATIVE_RANKS: no pixel was ever a negative of any class: the contrastive loss was 0"]

    def _mix(self, pseudo: PseudoLabels, views: Tensor, boxes: Tensor) -> tuple[Tensor, PseudoLabels]:
        """The strong views (B, 3, H, W), normalized, and their pseudo-labels, each with a box of the next image."""
        following = torch.arange(len(views), device=self.device).roll(-1)
        mixed, pseudo = cutmix(views, pseudo, boxes, following)
        return self.student.normalize(mixed), pseudo

    @torch.no_grad()
    def _judge(self, images: Tensor) -> SemSegOutput:
        """The teacher's output for normalized images in training mode, which also moves its BN statistics."""
        output = predict(self.teacher.train(), images).output
        self.teacher.eval()
        return output

    def _consistency(self, logits: Tensor, pseudo: PseudoLabels, kept: Tensor) -> LossTerm:
        """Lu: the mean over the kept pixels (B, H, W) bool, times the ratio of valid to kept pixels."""
        ratio = pseudo.valid.sum() / kept.sum().clamp(min=1)
        return LossTerm(
            name="loss_unsup",
            logits=logits,
            target=pseudo.labels,
            pixel_loss=cross_entropy,
            mask=kept * ratio,
            norm=kept,
            coefficient=self.alpha,
            weight=pseudo.weight,
        )


def _representation(output: SemSegOutput) -> Tensor:
    assert output.representation is not None, "only a model in training mode has a representation"
    return output.representation


@torch.no_grad()
def _cells(
    output: SemSegOutput, judged: SemSegOutput, target: Tensor, labels: Tensor, certain: Tensor, uncertain: Tensor
) -> Cells:
    """The input of `PixelContrast`.

    Args:
        output: the student's, for the labeled and the mixed images.
        judged: the teacher's, for the same images.
        target: (B, H, W) int64, the labeled images' labels.
        labels: (B, H, W) int64, the mixed images' pseudo-labels.
        certain: (B, H, W) bool, the certain ones of these.
        uncertain: (B, H, W) bool, the uncertain ones.
    """
    student, known = _representation(output), target != IGNORE
    size = student.shape[-2:]
    return Cells(
        student=student,
        teacher=_representation(judged),
        probability=at_cells(judged.logits, *size).float().softmax(dim=1),
        label=at_cells(torch.cat([target, labels]), *size),
        certain=at_cells(torch.cat([known, certain]), *size),
        uncertain=at_cells(torch.cat([known, uncertain]), *size),
        labeled=len(target),
    )


def percentiles(values: Tensor, mask: Tensor, *percents: float) -> list[Tensor]:
    """Percentiles of the values where a mask is True, interpolated linearly as by `numpy.percentile`.

    `torch.quantile` takes no mask, and at most 2^24 values.

    Args:
        values: float, of any shape.
        mask: bool, of the same shape.
        percents: in [0, 100].

    Returns:
        one scalar tensor each; NaN, with which every comparison is False, where the mask is False everywhere.
    """
    ordered = values.masked_fill(~mask, torch.inf).flatten().sort().values
    # In float64, to have a fraction at positions of millions.
    last = (mask.sum() - 1).clamp(min=0).double()
    found = []
    for percent in percents:
        position = last * (percent / 100)
        low, high = ordered.gather(0, torch.stack([position.floor(), position.ceil()]).long())
        found.append(low + (high - low) * position.frac())
    return found
