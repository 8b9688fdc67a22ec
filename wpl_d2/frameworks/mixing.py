"""CutMix: a box of each image is replaced by the same box of another image of the batch, labels and all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor

from ..structures import PseudoLabels

_TRIES = 256
"""Draws of a box, of which the first that fits is taken: of 0.4 of the image, one in sixteen does."""


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

    The area is uniform and drawn once. Aspect ratio and place are uniform and drawn again until a box of this area
    lies inside the image: were the area drawn again too, large boxes would be rare, since few of them fit. That loop
    is a fixed number of draws from torch's global CPU generator, of which the first that fits is taken, so that the
    masks are the same on every device and nothing waits for one. A box that never fits is moved inside, and cut off at
    the border if it is too high or too wide even so.

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
    pixels = height * width * (area[0] + (area[1] - area[0]) * torch.rand(batch, 1))
    draws = torch.rand(3, batch, _TRIES)
    aspect = ratio[0] + (ratio[1] - ratio[0]) * draws[0]
    h, w = (pixels * aspect).sqrt().long().clamp(min=1), (pixels / aspect).sqrt().long().clamp(min=1)
    y, x = (draws[1] * height).long(), (draws[2] * width).long()
    fits, small = (y + h <= height) & (x + w <= width), (h <= height) & (w <= width)
    first = (fits.int() + small.int()).argmax(dim=1, keepdim=True)
    y, x = y.minimum((height - h).clamp(min=0)), x.minimum((width - w).clamp(min=0))
    mixed = torch.rand(batch, 1) < prob
    top, bottom, left, right = (side.gather(1, first) for side in (y, y + h * mixed, x, x + w))
    return _boxes(top, bottom, left, right, size, device)


def half_boxes(batch: int, size: Sequence[int], prob: float, device: torch.device | str = "cpu") -> Tensor:
    """Draw one box of half the image's area for each image of a batch (U2PL's recipe, which AEL borrows).

    The width is uniform between half of the image's and all of it, and so is the place. Either all images of the
    batch get a box or none. Drawn as in `cutmix_masks`: from torch's global CPU generator, waiting for no device.

    Args:
        batch: number of images.
        size: (height, width) of the images.
        prob: probability that the batch is mixed at all.
        device: where the masks shall be.

    Returns:
        (batch, H, W) bool, True inside the boxes.
    """
    height, width = size
    draws = torch.rand(3, batch, 1)
    w = (width * (1 + draws[0]) / 2).long()
    h = (height * width / 2 / w).round().long().clamp(max=height)
    y, x = (draws[1] * (height - h + 1)).long(), (draws[2] * (width - w + 1)).long()
    mixed = torch.rand(()) < prob
    return _boxes(y, y + h * mixed, x, x + w, size, device)


def beta_boxes(
    batch: int, size: Sequence[int], beta: tuple[float, float], device: torch.device | str = "cpu"
) -> Tensor:
    """Draw one box for each image of a batch (AugSeg's recipe).

    The boxes of a batch are of one size, the image's times sqrt(1 - s), s ~ Beta(*beta); their centres are uniform from
    an eighth of the image on, and what leaves the image is cut off. Drawn as in `cutmix_masks`: from torch's global
    CPU generator, waiting for no device.

    Args:
        batch: number of images.
        size: (height, width) of the images.
        beta: the distribution's parameters.
        device: where the masks shall be.

    Returns:
        (batch, H, W) bool, True inside the boxes.
    """
    height, width = size
    # Unchecked, since checks read tensors back, which no step shall.
    share = (1 - torch.distributions.Beta(*beta, validate_args=False).sample()).sqrt()
    draws = torch.rand(2, batch, 1)
    y, x = (side // 8 + ((side - side // 8) * drawn).long() for side, drawn in zip(size, draws, strict=True))
    half_h, half_w = (height * share).long() // 2, (width * share).long() // 2
    return _boxes(y - half_h, y + half_h, x - half_w, x + half_w, size, device)


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
    return paste(images, pseudo, masks, images[partner], pseudo.map(lambda field: field[partner]))


def paste(
    images: Tensor, pseudo: PseudoLabels, masks: Tensor, others: Tensor, known: PseudoLabels
) -> tuple[Tensor, PseudoLabels]:
    """Show other images, and everything known about their pixels, where a mask says so.

    Args:
        images: (B, 3, H, W).
        pseudo: the pseudo-labels of the images.
        masks: (B, H, W) bool, True where the others are shown.
        others: (B, 3, H, W), of the dtype of `images`.
        known: the (pseudo-)labels of the others.

    Returns:
        The mixed images and their pseudo-labels.
    """
    return torch.where(masks[:, None], others, images), pseudo.where(masks, known)


def _boxes(
    top: Tensor, bottom: Tensor, left: Tensor, right: Tensor, size: Sequence[int], device: torch.device | str
) -> Tensor:
    """Masks (B, *size) bool on `device`, True inside half-open boxes whose edges are (B, 1) int64 on the CPU."""
    top, bottom, left, right = torch.stack([top, bottom, left, right]).to(device, non_blocking=True)
    rows, columns = torch.arange(size[0], device=device), torch.arange(size[1], device=device)
    return ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None, :]
