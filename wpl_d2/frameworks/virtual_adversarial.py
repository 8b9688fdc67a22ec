"""Noise on feature maps to which a model's prediction is most sensitive."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def adversarial_noise(
    segment: Callable[[Tensor], Tensor], maps: Tensor, direction: Tensor, step: float, radius: float
) -> Tensor:
    """Noise in the direction in which predictions change most, by one step of its search (Miyato et al., TPAMI 2019).

    It is that of the gradient of KL(p(maps) || p(maps + step * direction)), where p are the class probabilities,
    computed in float32 whatever the precision around it.

    Args:
        segment: makes logits of feature maps, each image for itself; no parameter of it gets a gradient.
        maps: (B, D, h, w) float, the feature maps.
        direction: (B, D, h, w) float32, where the search starts.
        step: length of the step; the direction is that of a unit vector for each image.
        radius: length of the noise of each image.

    Returns:
        (B, D, h, w) float32, without a gradient.
    """
    with torch.autocast(maps.device.type, enabled=False):
        maps = maps.detach().float()
        with torch.no_grad():
            target = segment(maps).softmax(dim=1)
        with torch.enable_grad():
            direction = _unit(direction).requires_grad_()
            moved = segment(maps + step * direction).log_softmax(dim=1)
            distance = F.kl_div(moved, target, reduction="batchmean")
            (gradient,) = torch.autograd.grad(distance, direction)
        return radius * _unit(gradient)


def _unit(maps: Tensor) -> Tensor:
    """Each image's maps (B, D, h, w) as a vector of length 1; 0 stays 0."""
    return maps / (maps.flatten(1).norm(dim=1)[:, None, None, None] + 1e-8)
