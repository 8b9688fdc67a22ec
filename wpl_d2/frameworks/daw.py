"""DAW: UniMatch, whose pseudo-labels are aligned with the labeled images, and train from a threshold that moves."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import configurable
from torch import Tensor, nn
from typing_extensions import override

from ..modeling import UnifiedSegDet
from ..structures import IGNORE, PseudoLabels, SemSegOutput
from ..utils.cpu_speed import best_class
from ..weighting.weigher import RunningClassMean
from .base import FRAMEWORK_REGISTRY, Items, Terms
from .pseudo_labels import Prediction
from .teacher_student import TeacherStudent
from .unimatch import UniMatch

_MOMENTUM = 0.99


@FRAMEWORK_REGISTRY.register()
class DAW(UniMatch, TeacherStudent):
    """DAW (Sun et al., NeurIPS 2023): UniMatch with `ConfidenceAlignment` and the threshold of `GaussianThreshold`.

    The teacher labels nothing: it is an average of the student to evaluate. A step's statistics are used from the next
    step on. FRAMEWORK.THRESHOLD is the threshold until labeled pixels were predicted both rightly and wrongly.

    It is written from a description of the method. Choices where that leaves any: running means begin with the first
    step that has pixels for them, and the Gaussians' variances come from running means of the confidence and of its
    square.

    With SOLVER.GRAD_ACCUMULATION the same is of each micro-batch as in `MeanTeacher`.

    Args:
        num_classes: C.
        framework: the arguments of `UniMatch` and `TeacherStudent`.
    """

    threshold: Tensor
    selection = "DAW's threshold, which begins with FRAMEWORK.THRESHOLD"

    @configurable
    def __init__(self, *, num_classes: int, **framework: Any) -> None:
        super().__init__(**framework)
        first = self.threshold
        del self.threshold  # `Framework`'s, a number that never moves
        self.register_buffer("threshold", torch.tensor(float(first)))
        self.alignment = ConfidenceAlignment(num_classes, _MOMENTUM)
        self.gaussians = GaussianThreshold(num_classes, _MOMENTUM)

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        return super().from_config(cfg) | {"num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES}

    @property
    @override
    def pseudo_labeler(self) -> UnifiedSegDet:
        return self.student

    @override
    def supervised_losses(
        self, items: Items, features: dict[str, Tensor], output: SemSegOutput, *args: Any, **kwargs: Any
    ) -> Terms:
        terms, losses = super().supervised_losses(items, features, output, *args, **kwargs)
        target = terms[0].target
        confidence, labels = _confidence(output.logits)
        self.alignment.labeled.stage(confidence, labels, target != IGNORE)
        self.gaussians.stage(confidence, labels, target)
        return terms, losses

    @override
    def label(self, items: Items) -> Prediction:
        return self._align(super().label(items))

    @torch.no_grad()
    @override
    def make_pseudo_labels(self, items: Items, prediction: Prediction) -> PseudoLabels:
        """As every framework's, of aligned probabilities."""
        self.alignment.unlabeled.stage(*_confidence(prediction.output.logits), self.stack(items, "valid"))
        return super().make_pseudo_labels(items, self._align(prediction))

    @torch.no_grad()
    @override
    def after_step(self) -> None:
        super().after_step()
        self.alignment.after_step()
        self.gaussians.after_step()
        self.threshold.copy_(self.gaussians.crossing(self.threshold))

    def _align(self, prediction: Prediction) -> Prediction:
        output = prediction.output
        return prediction._replace(output=output._replace(logits=self.alignment(output.logits)))


class ConfidenceAlignment(nn.Module):
    """Multiplies each class's probability by how sure the student is of it on labeled images, over unlabeled ones.

    Attributes:
        labeled: running mean of the confidence of labeled pixels, by the class that is predicted.
        unlabeled: the same of unlabeled ones.
    """

    def __init__(self, num_classes: int, momentum: float) -> None:
        super().__init__()
        self.labeled = RunningClassMean(num_classes, momentum)
        self.unlabeled = RunningClassMean(num_classes, momentum)

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (B, C, H, W) of the aligned probabilities; a class that was not seen in both streams is not moved."""
        seen = self.labeled.seen & self.unlabeled.seen
        ratio = torch.where(seen, self.labeled.mean / self.unlabeled.mean, 1.0)
        return logits + ratio.log()[:, None, None]

    @torch.no_grad()
    def after_step(self) -> None:
        """Update both means. A collective call."""
        self.labeled.after_step()
        self.unlabeled.after_step()


class GaussianThreshold(nn.Module):
    """The confidence at which a labeled pixel is as likely to be predicted rightly as wrongly.

    Both confidences are taken for normal, of running means and variances.

    Attributes:
        mean: running means of the confidence where the prediction is wrong, and where it is right.
        square: the same of its square.
    """

    def __init__(self, num_classes: int, momentum: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.mean = RunningClassMean(2, momentum)
        self.square = RunningClassMean(2, momentum)

    @torch.no_grad()
    def stage(self, confidence: Tensor, labels: Tensor, target: Tensor) -> None:
        """Stage labeled pixels.

        Args:
            confidence: (B, H, W) float32, of the predicted classes.
            labels: (B, H, W) int64, these classes.
            target: (B, H, W) int64 class ids or `IGNORE`.
        """
        right, known = (labels == target).long(), target != IGNORE
        self.mean.stage(confidence, right, known)
        self.square.stage(confidence.square(), right, known)

    @torch.no_grad()
    def after_step(self) -> None:
        """Update the means. A collective call."""
        self.mean.after_step()
        self.square.after_step()

    def crossing(self, first: Tensor) -> Tensor:
        """Where the two densities cross between their means, in [1 / C, 1]; `first` while one of them is unknown.

        It is the root, at which the right one's rises above the wrong one's, of a * t^2 + b * t + q.
        """
        mean = self.mean.mean.double()
        # Of pixels of one confidence the variance is 0, or by rounding a little less.
        variance = (self.square.mean.double() - mean.square()).clamp(min=1e-6)
        (wrong, right), (wrong_var, right_var) = mean.unbind(), variance.unbind()
        a = right_var - wrong_var
        b = 2 * (right * wrong_var - wrong * right_var)
        q = wrong.square() * right_var - right.square() * wrong_var
        q = q + right_var * wrong_var * (wrong_var / right_var).log()
        # In this form it has a value where the variances are equal.
        root = -2 * q / (b + (b.square() - 4 * a * q).clamp(min=0).sqrt())
        known = self.mean.seen.all() & root.isfinite()
        return torch.where(known, root.clamp(1 / self.num_classes, 1).to(first), first)


def _confidence(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The highest probability of each pixel, (B, H, W) float32, and its class, int64."""
    return best_class(logits.detach().float().softmax(dim=1))
