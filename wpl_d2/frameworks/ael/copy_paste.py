"""AEL's copy-paste of classes, and boxes around connected components of a class, without a host sync."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor

from ...weighting.components import connected_components, on_cells
from ...weighting.sampling import at_cells
from .class_banks import sample_true


def copy_paste(item: dict[str, Any], pasted: Tensor, object_classes: Tensor | None = None) -> dict[str, Any]:
    """Paste all pixels of some classes of an item's second image into it.

    The boxes of pasted objects are added; those of objects that are now hidden, wholly or in part, are kept. With boxes
    the host waits for the device, as it does in Detectron2's training of a detector anyway.

    Args:
        item: of `PasteMapper`; without "paste" it is returned unchanged.
        pasted: (`IGNORE` + 1,) bool, which class ids are pasted.
        object_classes: (N,) int64, the semantic class id of each detector class, for items with `instances`.

    Returns:
        A copy with the new "image", "sem_seg", "valid" and, if given, "instances", on the device of `pasted`.
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


@torch.no_grad()
def sample_component_boxes(labels: Tensor, classes: Tensor, samples: Tensor, min_area: float) -> tuple[Tensor, Tensor]:
    """The bounding box of a random connected component of a class in each image, large ones being equally likely.

    Args:
        labels: (B, H, W) int64 class ids or `IGNORE`.
        classes: (B,) int64, the component's class; -1 for none.
        samples: (B,) float, uniform in [0, 1).
        min_area: a component must cover more than this ratio of the image.

    Returns:
        (B, H, W) bool, True inside the boxes, and (B,) bool, whether there is such a component.
    """
    cells = on_cells(labels)
    numbers = connected_components(cells == classes[:, None, None])
    areas = numbers.new_zeros(len(cells), cells[0].numel() + 1)
    areas.scatter_add_(1, numbers.flatten(1), torch.ones_like(numbers).flatten(1))
    large = areas > min_area * cells[0].numel()
    large[:, 0] = False  # the number of the other classes' cells
    part = numbers == sample_true(large, samples)[:, None, None]
    found = large.any(dim=1)
    boxes = _span(part.any(dim=2)).unsqueeze(2) & _span(part.any(dim=1)).unsqueeze(1)
    return at_cells(boxes & found[:, None, None], *labels.shape[-2:]), found


def _span(line: Tensor) -> Tensor:
    """(B, N) bool: True from the first True of each row to its last."""
    return (line.cumsum(dim=1) > 0) & (line.flip(1).cumsum(dim=1).flip(1) > 0)
