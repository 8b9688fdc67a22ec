"""The pasting of rare classes, and boxes around connected parts of a class, found without a host sync."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor

from ...weighting.components import connected_components
from ...weighting.sampling import at_cells
from ..random_samples import choose_true


def copy_paste(item: dict[str, Any], pasted: Tensor, object_classes: Tensor | None = None) -> dict[str, Any]:
    """Paste all pixels of some classes of an item's second image into it.

    The boxes of pasted objects join the item's own; those of objects that are now hidden, wholly or in part, stay as
    they were. With boxes the host waits for the device, as Detectron2's training of a detector does anyway.

    Args:
        item: of `PasteMapper`; without `paste` it is returned as it is.
        pasted: (`IGNORE` + 1,) bool, which class ids are pasted.
        object_classes: (N,) int64, the semantic class id of each detector class, for items with `instances`.

    Returns:
        A copy with `image`, `sem_seg`, `valid` and, if there were some, `instances` of the result, on the device of
        `pasted`.
    """
    if "paste" not in item:
        return item
    second, device = item["paste"], pasted.device
    fields = ("image", "sem_seg", "valid")
    own, theirs = ([image[key].to(device, non_blocking=True) for key in fields] for image in (item, second))
    mask = pasted[theirs[1]]
    moved = {key: torch.where(mask, new, old) for key, old, new in zip(fields, own, theirs, strict=True)}
    if object_classes is not None:
        instances = second["instances"].to(device)
        seen = instances[pasted[object_classes[instances.gt_classes]]]
        moved["instances"] = Instances.cat([item["instances"].to(device), seen])
    return item | moved


_STRIDE = 4
"""Pixels from cell to cell: the network's logits are of this stride, and its labels hold nothing finer."""


@torch.no_grad()
def component_boxes(labels: Tensor, classes: Tensor, shares: Tensor, min_area: float) -> tuple[Tensor, Tensor]:
    """The bounding box of one connected part of a class in each image, all large ones being equally likely.

    Parts are told apart and measured on every fourth pixel.

    Args:
        labels: (B, H, W) int64 class ids or `IGNORE`.
        classes: (B,) int64, whose part is wanted; -1: none.
        shares: (B,) float, uniform in [0, 1), which part is taken.
        min_area: a part must cover more than this share of the image.

    Returns:
        (B, H, W) bool, True inside the boxes, and (B,) bool, whether there is such a part.
    """
    height, width = labels.shape[-2:]
    cells = at_cells(labels, -(-height // _STRIDE), -(-width // _STRIDE))
    numbers = connected_components(cells == classes[:, None, None])
    areas = numbers.new_zeros(len(cells), cells[0].numel() + 1)
    areas.scatter_add_(1, numbers.flatten(1), torch.ones_like(numbers).flatten(1))
    large = areas > min_area * cells[0].numel()
    large[:, 0] = False  # the number of all that is outside
    part = numbers == choose_true(large, shares)[:, None, None]
    found = large.any(dim=1)
    boxes = _span(part.any(dim=2)).unsqueeze(2) & _span(part.any(dim=1)).unsqueeze(1)
    return at_cells(boxes & found[:, None, None], height, width), found


def _span(line: Tensor) -> Tensor:
    """(B, N) bool: True from the first True of a row to its last."""
    return (line.cumsum(dim=1) > 0) & (line.flip(1).cumsum(dim=1).flip(1) > 0)
