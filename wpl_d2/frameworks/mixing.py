"""CutMix: a box of each image is replaced by the same box of another image of the batch, labels and all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor

from ..structures import PseudoLabels

_TRIES = 256
"""Tries to place a box; the first that fits is taken. Of boxes of 0.4 of the image one in sixteen fits."""

_BOXES = 3


class CutMixBoxes:
    """The random samples of a step that mixes by `cutmix`; the arguments are those of `draw_boxes`."""

    @configurable
    def __init__(self, *, prob: float, area: Sequence[float], ratio: Sequence[float]) -> None:
        self.prob = prob
        self.area = area
        self.ratio = ratio

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of `__init__` from FRAMEWORK.CUTMIX."""
        mixing = cfg.FRAMEWORK.CUTMIX
        return {"prob": mixing.PROB, "area": tuple(mixing.AREA), "ratio": tuple(mixing.RATIO)}

    def __call__(self, views: Sequence[Tensor]) -> list[Tensor]:
        """A mask (B, H, W) bool for each view (B, 3, H, W), on its device."""
        if not views:
            return []
        images, size = len(views[0]), views[0].shape[-2:]
        boxes = [draw_boxes(images, size, self.prob, self.area, self.ratio) for _ in views]
        return list(box_masks(torch.cat(boxes, dim=1), size, views[0].device).split(images))


def cutmix_masks(
    batch: int,
    size: Sequence[int],
    prob: float,
    area: Sequence[float],
    ratio: Sequence[float],
    device: torch.device | str = "cpu",
) -> Tensor:
    """The boxes of `draw_boxes` as masks (batch, H, W) bool on a device, True inside."""
    return box_masks(draw_boxes(batch, size, prob, area, ratio), size, device)


def draw_boxes(
    batch: int,
    size: Sequence[int],
    prob: float,
    area: Sequence[float],
    ratio: Sequence[float],
    redraw_area: bool = False,
) -> Tensor:
    """Draw one box for each image of a batch (UniMatch's recipe).

    The area is uniform and drawn once. Aspect ratio and position are uniform and drawn until a box of this area lies
    inside the image; if the area is drawn again too (ST++'s), large boxes are rare, since few of them fit. A box that
    does not fit in `_TRIES` draws is moved inside, and clipped where it is still too large. All draws come from torch's
    global CPU generator: boxes are the same for every device, and the host does not wait for it.

    Args:
        batch: number of images.
        size: (height, width) of the images.
        prob: probability that an image gets a box.
        area: smallest and largest ratio of the box's area to the image's.
        ratio: smallest and largest height / width of a box.
        redraw_area: see above.

    Returns:
        (4, batch, 1) int64, half-open: top, bottom, left and right.
    """
    height, width = size
    shares = torch.rand(batch, _TRIES if redraw_area else 1)
    pixels = height * width * (area[0] + (area[1] - area[0]) * shares)
    shape, down, right = torch.rand(3, batch, _TRIES)
    aspect = ratio[0] + (ratio[1] - ratio[0]) * shape
    h, w = (pixels * aspect).sqrt().long().clamp(min=1), (pixels / aspect).sqrt().long().clamp(min=1)
    y, x = (down * height).long(), (right * width).long()
    fits, small = (y + h <= height) & (x + w <= width), (h <= height) & (w <= width)
    first = (fits.int() + small.int()).argmax(dim=1, keepdim=True)
    y, x = y.minimum((height - h).clamp(min=0)), x.minimum((width - w).clamp(min=0))
    mixed = torch.rand(batch, 1) < prob
    return torch.stack([side.gather(1, first) for side in (y, y + h * mixed, x, x + w)])


def half_boxes(batch: int, size: Sequence[int], prob: float, device: torch.device | str = "cpu") -> Tensor:
    """Draw one box of half the image's area for each image of a batch (U2PL's recipe, also used for AEL).

    The width is uniform between half of the image's and all of it, the position uniform. Either all images of the
    batch get a box or none. The generator is that of `draw_boxes`.

    Args:
        batch: number of images.
        size: (height, width) of the images.
        prob: probability that the batch is mixed.
        device: of the masks.

    Returns:
        (batch, H, W) bool, True inside the boxes.
    """
    height, width = size
    ratio, down, right = torch.rand(3, batch, 1)
    w = (width * (1 + ratio) / 2).long()
    h = (height * width / 2 / w).round().long().clamp(max=height)
    y, x = (down * (height - h + 1)).long(), (right * (width - w + 1)).long()
    mixed = torch.rand(()) < prob
    return box_masks(torch.stack([y, y + h * mixed, x, x + w]), size, device)


def crossing_boxes(
    batch: int, size: Sequence[int], prob: float, area: Sequence[float], device: torch.device | str = "cpu"
) -> Tensor:
    """Draw three boxes for each image of a batch, where two of them cross neither is (French et al., BMVC 2020; CPS).

    The arguments are those of `three_boxes`.

    Returns:
        (batch, H, W) bool, True inside an odd number of boxes.
    """
    return three_boxes(batch, size, prob, area, device).sum(dim=1) % 2 == 1


def three_boxes(
    batch: int, size: Sequence[int], prob: float, area: Sequence[float], device: torch.device | str = "cpu"
) -> Tensor:
    """Draw three boxes for each image of a batch.

    Each box has a third of an area that is uniform; the logarithm of its height's share of this area is uniform, and
    its position, at which it lies inside the image. The generator is that of `draw_boxes`.

    Args:
        batch: number of images.
        size: (height, width) of the images.
        prob: probability that an image gets boxes.
        area: smallest and largest ratio of the boxes' areas together to the image's.
        device: of the masks.

    Returns:
        (batch, 3, H, W) bool, True inside the boxes.
    """
    height, width = size
    share, shape, down, right = torch.rand(4, batch, _BOXES)
    share = area[0] + (area[1] - area[0]) * share
    tall = share**shape
    mixed = torch.rand(batch, 1) < prob
    h = (height * tall / _BOXES**0.5).round().long() * mixed
    w = (width * share / tall / _BOXES**0.5).round().long()
    y, x = (down * (height - h)).round().long(), (right * (width - w)).round().long()
    edges = torch.stack([y, y + h, x, x + w]).view(4, -1, 1)
    return box_masks(edges, size, device).unflatten(0, (batch, _BOXES))


def beta_boxes(batch: int, size: Sequence[int], prob: float, device: torch.device | str = "cpu") -> Tensor:
    """Draw one box for each image of a batch, all of one size (PS-MT's recipe).

    Its share of the image's area is drawn from Beta(4, 4), its sides are in the image's ratio. Centers are uniform from
    an eighth of the image's sides on; what is outside of the image is cut off. The generator is that of `draw_boxes`.

    Args:
        batch: number of images.
        size: (height, width) of the images.
        prob: probability that an image gets a box.
        device: of the masks.

    Returns:
        (batch, H, W) bool, True inside the boxes.
    """
    side = torch.distributions.Beta(4.0, 4.0, validate_args=False).sample() ** 0.5
    mixed = torch.rand(batch, 1) < prob
    edges = []
    for length in size:
        half = (length * side).long() // 2 * mixed
        center = torch.randint(length // 8, length, (batch, 1))
        edges += [(center - half).clamp(min=0), (center + half).clamp(max=length)]
    return box_masks(torch.stack(edges), size, device)


def square_boxes(batch: int, size: Sequence[int], side: int, device: torch.device | str = "cpu") -> Tensor:
    """Draw one square for each image of a batch, around any of its pixels, so that some are cut off (PseudoSeg).

    The generator is that of `draw_boxes`.

    Args:
        batch: number of images.
        size: (height, width) of the images.
        side: of the squares, in pixels.
        device: of the masks.

    Returns:
        (batch, H, W) bool, True inside the squares.
    """
    y, x = ((torch.rand(batch, 1) * length).long() - side // 2 for length in size)
    return box_masks(torch.stack([y, y + side, x, x + side]), size, device)


def cutmix(
    images: Tensor, pseudo: PseudoLabels, masks: Tensor, partner: Tensor | None = None
) -> tuple[Tensor, PseudoLabels]:
    """Replace a box of each image by the same box of its partner, and the pseudo-labels with it.

    Args:
        images: (B, 3, H, W).
        pseudo: the pseudo-labels of the images.
        masks: (B, H, W) bool, True where the partner is shown.
        partner: (B,) int64 index of the image to take from; by default the previous one of the batch.

    Returns:
        The mixed images and their pseudo-labels.
    """

    def of_partners(maps: Tensor) -> Tensor:
        return maps.roll(1, dims=0) if partner is None else maps[partner]

    return paste(images, pseudo, masks, of_partners(images), pseudo.map(of_partners))


def paste(
    images: Tensor, pseudo: PseudoLabels, masks: Tensor, others: Tensor, known: PseudoLabels
) -> tuple[Tensor, PseudoLabels]:
    """Replace pixels of images by those of other images, and the pseudo-labels with them.

    Args:
        images: (B, 3, H, W).
        pseudo: the pseudo-labels of the images.
        masks: (B, H, W) bool, True where the others are shown.
        others: (B, 3, H, W), of the dtype of `images`.
        known: the others' labels or pseudo-labels.

    Returns:
        The mixed images and their pseudo-labels.
    """
    return torch.where(masks[:, None], others, images), pseudo.where(masks, known)


def box_masks(boxes: Tensor, size: Sequence[int], device: torch.device | str) -> Tensor:
    """Masks of half-open boxes: (B, *size) bool on a device, True inside.

    Args:
        boxes: (4, B, 1) int64 on the CPU: top, bottom, left and right.
        size: (H, W).
        device: of the masks.
    """
    top, bottom, left, right = boxes.to(device, non_blocking=True)
    rows, columns = torch.arange(size[0], device=device), torch.arange(size[1], device=device)
    return ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None, :]
