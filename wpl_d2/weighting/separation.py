"""Weights by confidence and by how evenly the other classes share the rest: `csl` and `covar` (WEIGHTING.KIND).

Both find, in each image and without a threshold, two clusters of labels in a plane of two figures, and weigh a label
by how far it falls short of the more confident cluster's mean. Both are reconstructions: of the papers no more than the
abstracts could be read, and of CSL's code what others report. Each docstring says what is from where.
What a study finds of them is no verdict on the published methods.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from ..structures import IGNORE
from .evidence import Evidence, Memory
from .scores import SCORE_REGISTRY, Score

_TINY = 1e-8
"""Added to variances that are divided by."""


class Separation(Score):
    """What the two kinds share; each says what the plane is, how it is split and how the distance becomes a score."""

    def dispersion(self, mean: Tensor, variance: Tensor) -> Tensor:
        """The second figure, beside the label's probability; lower values are better.

        Args:
            mean: (B, N) float, of the other classes' probabilities.
            variance: (B, N) float, likewise.
        """
        return variance

    def split(self, figures: Tensor, valid: Tensor) -> Tensor:
        """Which of two clusters each label is in: (B, N) bool.

        Args:
            figures: (2, B, N) float.
            valid: (B, N) bool, the labels that count.
        """
        raise NotImplementedError

    def weigh(self, ahead: Tensor) -> Tensor:
        """The scores, (B, N) float in [0, 1].

        Args:
            ahead: (2, B, N) float, how much better than the reliable cluster's mean each figure is, in its standard
                deviations.
        """
        raise NotImplementedError

    @override
    def forward(self, evidence: Evidence, memory: Memory) -> Tensor:
        pseudo = evidence.pseudo
        probabilities = evidence.logits.float().softmax(dim=1).flatten(2)
        valid, label = pseudo.valid.flatten(1), pseudo.labels.masked_fill(pseudo.labels == IGNORE, 0).flatten(1)
        own = probabilities.gather(1, label.unsqueeze(1)).squeeze(1)
        # Not 1 - own, of which little is left in float32 where own is nearly 1.
        others, count = probabilities.scatter(1, label.unsqueeze(1), 0.0), max(self.options.num_classes - 1, 1)
        rest = others.sum(dim=1) / count
        variance = (others.square().sum(dim=1) / count - rest.square()).clamp(min=0.0)
        figures = torch.stack([own, self.dispersion(rest, variance)])
        first = self.split(figures, valid)
        (mean, spread), (other, other_spread) = (_moments(figures, valid & part) for part in (first, ~first))
        swapped = other[:1] > mean[:1]
        mean, spread = torch.where(swapped, other, mean), torch.where(swapped, other_spread, spread)
        ahead = (figures - mean) / (spread + _TINY).sqrt()
        return self.weigh(torch.stack([ahead[0], -ahead[1]])).view_as(pseudo.confidence)


@SCORE_REGISTRY.register()
class ConfidenceSeparable(Separation):
    """CSL's weight (Liu and Liu, ICCV 2025, arXiv 2509.16704); a reconstruction.

    The abstract says: a convex problem in the space of confidence, with boundaries of each image's own. The
    rest is what others report of the published code (MIT), which was not read itself:
    - the plane is the confidence and the variance of the other classes' probabilities;
    - a label is in the cluster of the right singular vector of the 2 x N matrix of figures, not centered, in which its
      entry is larger in size;
    - a label that is better than the reliable cluster's mean in either figure has the score 1, any other
      exp(-(z1^2 + z2^2) / 8), z being the distances from the mean in standard deviations.

    The masking of reliable pixels, CSL's other half, is no weight and is not here.
    """

    kind = "csl"

    @override
    def split(self, figures: Tensor, valid: Tensor) -> Tensor:
        axes, strengths = _principal_axes(figures * valid)
        entries = (axes.unsqueeze(-1) * figures).sum(dim=1).square() / (strengths + _TINY).unsqueeze(-1)
        return entries[0] >= entries[1]

    @override
    def weigh(self, ahead: Tensor) -> Tensor:
        return torch.exp(-ahead.square().sum(dim=0) / 8).masked_fill((ahead > 0).any(dim=0), 1.0)


@SCORE_REGISTRY.register()
class ConfidenceVariance(Separation):
    """CoVar's weight (Liu, He and Liu, arXiv 2601.11670 version 3); a reconstruction.

    The abstract says: from a second-order approximation of the cross entropy, labels are good if their confidence is
    high and the variance of the residual classes low, with a penalty that grows with confidence; a spectral relaxation
    by SVD separates reliable from unreliable labels in that plane; Gaussians of the clusters make the weights. The
    rest is chosen here to fit these words:
    - the second figure is V / (2 m^2), where V is the variance and m the mean of the other classes' probabilities: the
      second-order term of the cross entropy between a uniform distribution and these;
    - both figures are standardized over the image, and the clusters are the two sides of the mean along the first
      principal axis, the relaxation of 2-means (Zha et al., NeurIPS 2001);
    - the score is exp(-(z1^2 + z2^2) / 2), z being how much worse than the reliable cluster's mean each figure is, in
      its standard deviations, and 0 where it is better.
    """

    kind = "covar"

    @override
    def dispersion(self, mean: Tensor, variance: Tensor) -> Tensor:
        return variance / (2 * mean.square()).clamp(min=torch.finfo(mean.dtype).tiny)

    @override
    def split(self, figures: Tensor, valid: Tensor) -> Tensor:
        mean, spread = _moments(figures, valid)
        standard = (figures - mean) / (spread + _TINY).sqrt()
        axes, _ = _principal_axes(standard * valid)
        return (axes[0].unsqueeze(-1) * standard).sum(dim=0) > 0

    @override
    def weigh(self, ahead: Tensor) -> Tensor:
        return torch.exp(-ahead.clamp(max=0.0).square().sum(dim=0) / 2)


def _moments(figures: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance, (2, B, 1) each, of the entries of (2, B, N) that a mask (B, N) selects."""
    count = mask.sum(dim=-1, keepdim=True)
    mean = (figures * mask).sum(dim=-1, keepdim=True) / count.clamp(min=1)
    squares = ((figures - mean).square() * mask).sum(dim=-1, keepdim=True)
    return mean, squares / (count - 1).clamp(min=1)


def _principal_axes(figures: Tensor) -> tuple[Tensor, Tensor]:
    """The left singular vectors of each (2, N) matrix of (2, B, N) figures, and the squares of its singular values.

    Their closed form, since decompositions on a GPU make the host wait.

    Returns:
        (2, 2, B) float, the stronger vector first, then its two entries; and (2, B) float.
    """
    a, c = figures.square().sum(dim=-1)
    b = figures.prod(dim=0).sum(dim=-1)
    angle = torch.atan2(2 * b, a - c) / 2
    first = torch.stack([angle.cos(), angle.sin()])
    strong = (a + c) / 2 + torch.hypot((a - c) / 2, b)
    weak = (a * c - b.square()).clamp(min=0.0) / strong.clamp(min=_TINY)
    return torch.stack([first, torch.stack([-first[1], first[0]])]), torch.stack([strong, weak])
