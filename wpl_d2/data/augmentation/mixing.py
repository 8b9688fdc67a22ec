"""CutMix: a box of each image is replaced by the same box of another image of the batch, labels and all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor

from ...structures import PseudoLabels

_TRIES = 64


class CutMixBoxes:
    """Draws boxes for `cutmix` as a config asks for them."""

    @configurable
    def __init__(self, *, prob: float, area: Sequence[float], ratio: Sequence[float]) -> None:
        """Prepare the draws; the arguments are those of `cutmix_masks`."""
        self.prob = prob
        self.area = area
        self.ratio = ratio

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of `__init__` from `FRAMEWORK.CUTMIX`."""
        mixing = cfg.FRAMEWORK.CUTMIX
        return {"prob": mixing.PROB, "area": tuple(mixing.AREA), "ratio": tuple(mixing.RATIO)}

    def __call__(self, images: Tensor) -> Tensor:
        """Masks (B, H, W) bool for images (B, 3, H, W), on their device."""
        size = (images.shape[-2], images.shape[-1])
        return cutmix_masks(len(images), size, self.prob, self.area, self.ratio, images.device)


def cutmix_masks(
    batch: int,
    size: Sequence[int],
    prob: float,
    area: Sequence[float],
    ratio: Sequence[float],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw one box for each image of a batch (UniMatch's recipe).

    Area, aspect ratio and place are uniform, and drawn again until the box lies inside the image. That loop
    is a fixed number of draws from torch's global CPU generator, of which the first that fits is taken, so
    that the masks are the same on every device and nothing waits for one. Boxes that never fit are cut off at
    the border.

    Args:
        batch: number of images.
        size: (height, width) of the images.
        prob: probability that an image gets a box at all.
        area: smallest and largest area of a box as a share of the image.
        ratio: smallest and largest height / width of a box.
        device: where the masks shall be.

    Returns:
        (batch, H, W) bool, True inside the boxes.
    """
    height, width = size
    draws = torch.rand(4, batch, _TRIES)
    pixels = height * width * (area[0] + (area[1] - area[0]) * draws[0])
    aspect = ratio[0] + (ratio[1] - ratio[0]) * draws[1]
    h, w = (pixels * aspect).sqrt().long().clamp(min=1), (pixels / aspect).sqrt().long().clamp(min=1)
    y, x = (draws[2] * height).long(), (draws[3] * width).long()
    first = ((y + h <= height) & (x + w <= width)).int().argmax(dim=1, keepdim=True)
    mixed = torch.rand(batch, 1) < prob
    edges = torch.stack([side.gather(1, first) for side in (y, y + h * mixed, x, x + w)]).to(device, non_blocking=True)
    top, bottom, left, right = edges
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    return ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None, :]


def cutmix(
    images: Tensor, pseudo: PseudoLabels, masks: Tensor, partner: Tensor | None = None
) -> tuple[Tensor, PseudoLabels]:
    """Paste each image's partner, and everything known about its pixels, into the image's box.

    Args:
        images: (B, 3, H, W).
        pseudo: the pseudo-labels of the images.
        masks: (B, H, W) bool, True where the partner is shown.
        partner: (B,) int64 index of the image to take from; by default the previous one of the batch.

    Returns:
        The mixed images and their pseudo-labels.
    """
    if partner is None:
        partner = torch.arange(len(images), device=images.device).roll(1)
    mixed = torch.where(masks[:, None], images[partner], images)
    return mixed, pseudo.where(masks, pseudo.map(lambda field: field[partner]))
