"""Masks as run lengths in COCO's format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ..sources import COCO_MASKS, Frame
from .base import MaskFormat
from .components import number_components


class CocoMasks(MaskFormat):
    """`masks.json`: an annotation for each 8-connected component of an object class, and one for each other class.

    Category ids are class ids. Pixels are kept to the last one.
    """

    place = COCO_MASKS

    @property
    def categories(self) -> list[dict[str, Any]]:
        """See `MaskFormat`."""
        return [{"id": index, "name": name} for index, name in enumerate(self.metadata["classes"])]

    def add(self, frame: Frame, labels: np.ndarray) -> Iterator[dict[str, Any]]:
        """See `MaskFormat`."""
        return _annotations(labels, self.metadata["objects"])


def _annotations(labels: np.ndarray, objects: list[int]) -> Iterator[dict[str, Any]]:
    numbers, classes, boxes = number_components(labels, objects, connectivity=8)
    flat, (height, width) = numbers.ravel(order="F"), numbers.shape
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(starts[1:], flat.size)
    owner = flat[starts]
    order = np.argsort(owner, kind="stable")
    runs = np.split(np.stack([starts, ends], axis=1)[order], np.cumsum(np.bincount(owner))[:-1])
    for class_id, box, own in zip(classes.tolist(), boxes.tolist(), runs, strict=True):
        counts = np.diff(own.ravel(), prepend=0, append=flat.size).tolist()
        rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        yield {
            "category_id": class_id,
            "bbox": box,
            "area": int((own[:, 1] - own[:, 0]).sum()),
            "iscrowd": 0,
            "segmentation": {"size": [height, width], "counts": rle["counts"].decode()},
        }
