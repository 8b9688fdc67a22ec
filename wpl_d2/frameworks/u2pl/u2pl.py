"""U2PL: pixels that the teacher is unsure of train as negatives of the classes that they cannot be of."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import configurable
from torch import Tensor

from ...losses import cross_entropy
from ...structures import IGNORE, LossTerm, PseudoLabels, SemSegOutput
from ...utils.errors import InputError
from ...weighting.sampling import at_cells
from ..base import FRAMEWORK_REGISTRY, Batch, Terms
from ..entropy import entropy, percentiles
from ..loss_terms import split
from ..mixing import cutmix, half_boxes
from ..teacher_student import TeacherStudent
from ..validation import check_views
from .pixel_contrast import Cells, PixelContrast


@FRAMEWORK_REGISTRY.register()
class U2PL(TeacherStudent):
    """U2PL (Wang et al., CVPR 2022): entropy says which pseudo-labels train, and the others become negatives.

    L = Ls + alpha * Lu + contrast * Lc. The teacher labels the weak views, half of all batches are CutMixed, and a
    second forward of the teacher, in training mode, judges the mixed images by their entropy. With a(t) falling
    linearly from `unreliable` to 0 percent, Lu = share * mean of W * CE over the pixels below the entropy's percentile
    100 - a(t), where share is the number of valid pixels over that of the kept ones; and Lc (`PixelContrast`) takes
    pixels up to the percentile a(t) as certain, and from 100 - a(t) on as uncertain.

    Differences to the published code, in brackets. Right by default, with FRAMEWORK.U2PL.CONTRAST_AS_PUBLISHED as
    published: all classes of a batch have anchors, labeled pixels are negatives too, and each image has the labels of
    its own alone (the first one has those of all, the others none). Always: padding is at the right and the bottom (on
    all sides), and has neither label nor share in the percentiles (is background); resized images (INPUT.RESIZE
    bilinear) are rounded to whole numbers; t counts steps (epochs); labels and probabilities are read at the pixel
    nearest to a cell of the representation (the one at or before it, and the classifier's own cells); and in the
    burn-in the teacher is the student's copy (it keeps its first weights, and by them moves BN statistics with which it
    labels the first images once it is given the student's weights). Lc is averaged over processes once: the published
    code averages it itself and DDP does so again, so that on its 4 GPUs (Cityscapes: 8) it counts as with
    FRAMEWORK.U2PL.CONTRAST_WEIGHT 0.25 (0.125) here. `PixelContrast` tells how negatives are kept.
    """

    teacher_trains = True
    has_representation = True
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
        """Put the framework together.

        Args:
            contrast: the contrastive loss.
            contrast_weight: its factor.
            unreliable: percent of the pixels that are so at the first step; it falls to 0 at the last one.
            cutmix_prob: probability that a batch is mixed.
            max_iter: steps of the training.
            framework: the arguments of `TeacherStudent`.
        """
        super().__init__(**framework)
        self.contrast = contrast
        self.contrast_weight = contrast_weight
        self.unreliable = unreliable
        self.cutmix_prob = cutmix_prob
        self.max_iter = max_iter

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The arguments that `cfg` stands for.

        Raises:
            InputError: the data has another number of strong views than one, or a key is out of its range.
        """
        check_views(cfg, 1)
        unreliable = cfg.FRAMEWORK.U2PL.UNRELIABLE
        if not 0 <= unreliable < 50:
            raise InputError(f"FRAMEWORK.U2PL.UNRELIABLE: {unreliable} percent; set it from 0 to below 50")
        return super().from_config(cfg) | {
            "contrast": PixelContrast(cfg),
            "contrast_weight": cfg.FRAMEWORK.U2PL.CONTRAST_WEIGHT,
            "unreliable": unreliable,
            "cutmix_prob": cfg.FRAMEWORK.CUTMIX.PROB,
            "max_iter": cfg.SOLVER.MAX_ITER,
        }

    @property
    def unreliable_percent(self) -> float:
        """Percent of the pixels that the current step takes as unreliable."""
        return self.unreliable * max(0.0, 1 - self.iteration / self.max_iter)

    def terms(self, batch: Batch) -> Terms:
        """The teacher's labels, one student forward of all images, and the teacher's judgement of the same images."""
        labeled, items = batch["labeled"], self.unlabeled(batch)
        images = self.images(labeled, "image")
        if items:
            # Drawn before the weigher draws anything, so that a weighted training mixes as its plain twin.
            shares = self.contrast.draw()
            mixed, pseudo = self._mix(batch)
            images = torch.cat([images, mixed])
        features = self.student.encode(images)
        output = self.student.decode(features, images.shape[-2:])
        own, strong = split(output, len(labeled), len(items))
        terms, losses = self.supervised(labeled, features, own)
        if not items:
            # DDP waits for a gradient of every parameter.
            return terms, losses | {"loss_contrast": 0.0 * _representation(output).float().mean()}
        self.stage_strong(strong.embedding, pseudo)
        judged = self._judge(images)
        doubt = entropy(judged.logits[len(labeled) :])
        percent = self.unreliable_percent
        low, high = percentiles(doubt, pseudo.valid, percent, 100 - percent)
        certain, uncertain = pseudo.valid & (doubt <= low), pseudo.valid & (doubt >= high)
        cells = _cells(output, judged, terms[0].target, pseudo.labels, certain, uncertain)
        kept = pseudo.valid & (doubt < high)
        self.latest["scalars"]["pseudo/selected"] = kept.sum() / pseudo.valid.sum().clamp(min=1)
        terms.append(self._consistency(strong.logits, pseudo, kept))
        losses["loss_contrast"] = self.contrast_weight * self.contrast(cells, shares)
        return terms, losses

    @torch.no_grad()
    def after_step(self) -> None:
        """As every teacher's framework; and the staged negatives go into their queues."""
        super().after_step()
        self.contrast.after_step()

    def ineffective_parts(self) -> list[str]:
        """Whether there was never a negative."""
        if self.contrast.queues.pushed.any():
            return []
        return ["FRAMEWORK.U2PL.NEGATIVE_RANKS: no pixel was ever a negative of any class: the contrastive loss was 0"]

    def _mix(self, batch: Batch) -> tuple[Tensor, PseudoLabels]:
        """The strong views (B, 3, H, W), normalized, and their pseudo-labels, each with a box of the next image."""
        views = self.stack(batch["unlabeled"], "strong")[:, 0]
        masks = half_boxes(len(views), (views.shape[-2], views.shape[-1]), self.cutmix_prob, self.device)
        following = torch.arange(len(views), device=self.device).roll(-1)
        mixed, pseudo = cutmix(views, self.label(batch), masks, following)
        return self.student.normalize(mixed), pseudo

    @torch.no_grad()
    def _judge(self, images: Tensor) -> SemSegOutput:
        """What the teacher makes of normalized images in training mode, which also moves its BN statistics."""
        teacher = self.labeler.train()
        output = teacher.decode(teacher.encode(images), images.shape[-2:])
        teacher.eval()
        return output

    def _consistency(self, logits: Tensor, pseudo: PseudoLabels, kept: Tensor) -> LossTerm:
        """Lu: the mean over the kept pixels (B, H, W) bool, divided by their share of the valid ones."""
        share = pseudo.valid.sum() / kept.sum().clamp(min=1)
        return LossTerm(
            name="loss_unsup",
            logits=logits,
            target=pseudo.labels,
            pixel_loss=cross_entropy,
            mask=kept * share,
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
    """What `PixelContrast` needs, at the representation's cells.

    Args:
        output: the student's, of the labeled and the mixed images.
        judged: the teacher's, of the same images.
        target: (B, H, W) int64, the labeled images' labels.
        labels: (B, H, W) int64, the mixed images' pseudo-labels.
        certain: (B, H, W) bool, which of the pseudo-labels are so.
        uncertain: (B, H, W) bool, which of the pseudo-labels are so.
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
