"""Index masks of the cache: PNGs of class ids, which may hold the boxes of the instances that they show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..utils.files import replace_file

_BOXES = "boxes"
_BOX_CLASSES = "box_classes"


def write_index_mask(
    file: Path, mask: np.ndarray, boxes: np.ndarray | None = None, box_classes: np.ndarray | None = None
) -> None:
    """Write a PNG, which is whole or absent.

    Args:
        file: to write; its folder is there.
        mask: (H, W) uint8 class ids.
        boxes: (N, 4) xyxy, half-open.
        box_classes: (N,) class ids.

    Raises:
        UnwritableError: the disk refuses it.
    """
    info = PngInfo()
    for key, values in ((_BOXES, boxes), (_BOX_CLASSES, box_classes)):
        if values is not None:
            info.add_text(key, json.dumps(values.tolist()))
    image = Image.fromarray(mask)
    replace_file(file, lambda unfinished: image.save(unfinished, format="PNG", pnginfo=info))


def read_boxes(file: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """The boxes in a PNG: (N, 4) float32 xyxy, half-open, and class ids (N,) int64."""
    with Image.open(file) as image:
        boxes, classes = (json.loads(image.info[key]) for key in (_BOXES, _BOX_CLASSES))
    return np.array(boxes, dtype=np.float32).reshape(-1, 4), np.array(classes, dtype=np.int64)
