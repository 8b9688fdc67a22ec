"""Copy-paste: the pixels of some classes of a second labeled image cover those of the first, labels and all."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor


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
