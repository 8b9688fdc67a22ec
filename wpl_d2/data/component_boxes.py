"""Boxes of objects: of the instances that labels hold, else around each connected component of a mask (paper, 3.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.utils import comm
from tqdm import tqdm

from ..structures import IGNORE
from ..utils.errors import InputError
from .file_cache import cache_file, file_state, load_arrays, store_arrays
from .image_header import APPLY
from .image_io import read_record_mask
from .index_masks import read_boxes

LeaveOut = Callable[[dict[str, Any], InputError], None]
"""Called with a dataset dict whose mask cannot be read, and the reason."""
_VERSION = 1  # of what is stored; part of the key


def boxes_from_mask(
    mask: np.ndarray, classes: Sequence[int], min_area: int = 90, ignore: int = IGNORE
) -> tuple[np.ndarray, np.ndarray]:
    """The tight box of every 8-connected component of the given classes.

    As in the paper, instances of a class that touch share one box.

    Args:
        mask: (H, W) integer class ids.
        classes: ids of the classes that get boxes.
        min_area: components with fewer pixels get no box.
        ignore: the value for "no class", which gets no box.

    Returns:
        boxes (N, 4) int64 xyxy, half-open (x1 = last column + 1), and class ids (N,) int64; in the order of
        `classes`, within a class from top to bottom, then from left to right.

    Raises:
        ValueError: if the mask is not a two-dimensional integer array.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "iu":
        raise ValueError(f"mask: is a {mask.ndim}-dimensional array of {mask.dtype}; give (height, width) integer ids")
    boxes, ids = [], []
    for class_id in classes:
        if class_id != ignore:
            found = _component_boxes(mask == class_id, min_area)
            boxes.append(found)
            ids.append(np.full(len(found), class_id, dtype=np.int64))
    if not boxes:
        return np.zeros((0, 4), dtype=np.int64), np.zeros(0, dtype=np.int64)
    return np.concatenate(boxes), np.concatenate(ids)


def _component_boxes(binary: np.ndarray, min_area: int) -> np.ndarray:
    # Components are searched inside the class's own bounding box: most classes fill a small part of an image.
    pixels = binary.view(np.uint8)
    left, top, width, height = cv2.boundingRect(pixels)
    window = np.ascontiguousarray(pixels[top : top + height, left : left + width])
    if window.size == 0:
        return np.zeros((0, 4), dtype=np.int64)
    stats = cv2.connectedComponentsWithStats(window, connectivity=8)[2][1:].astype(np.int64)
    x, y, w, h, _ = stats[stats[:, cv2.CC_STAT_AREA] >= min_area].T
    boxes = np.stack([x + left, y + top, x + left + w, y + top + h], axis=1)
    return boxes[np.lexsort(boxes.T[[3, 2, 0, 1]])]


def boxes_of_record(
    record: Mapping[str, Any], mask: np.ndarray, classes: Sequence[int], min_area: int
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of a dataset dict: as its labels give them, else those of the components of its mask.

    Args:
        record: with `box_file_name` if its labels hold instances; see `attach_labels`.
        mask: of `read_record_mask`.
        classes: ids of the classes that get boxes.
        min_area: components with fewer pixels get no box; boxes that are given stay.

    Returns:
        boxes (N, 4) xyxy, half-open, and class ids (N,) int64.
    """
    if "box_file_name" not in record:
        return boxes_from_mask(mask, classes, min_area)
    boxes, ids = read_boxes(record["box_file_name"])
    wanted = np.isin(ids, list(classes))
    if "window" in record:
        top, left, height, width, _ = record["window"]
        boxes = (boxes - np.array([left, top] * 2, dtype=np.float32)).clip(0, [width, height] * 2)
        wanted &= (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    return boxes[wanted], ids[wanted]


def _refuse(record: dict[str, Any], error: InputError) -> None:
    raise error


def attach_component_boxes(
    dataset_dicts: Sequence[dict[str, Any]],
    object_ids: Sequence[int],
    min_area: int,
    leave_out: LeaveOut = _refuse,
) -> list[dict[str, Any]]:
    """Attach the boxes of its objects (`boxes_of_record`) to every dataset dict. All processes must call it.

    The boxes are computed once, by one process of each machine, and stored in the file cache under a key of all that
    they depend on: the masks' paths, sizes and times of change, the object classes and the smallest area.

    Args:
        dataset_dicts: Detectron2 dataset dicts with `sem_seg_file_name`.
        object_ids: semantic class ids of the detector's classes, in their order.
        min_area: components with fewer pixels get no box.
        leave_out: called on every process for each mask that cannot be read; by default that is an error.

    Returns:
        Copies of the dicts whose masks can be read, with `boxes` (N, 4) float32 xyxy and `box_classes` (N,) int64,
        indices into `object_ids`.

    Raises:
        InputError: a mask cannot be read.
    """
    file, count = _cache_file(dataset_dicts, object_ids, min_area), len(dataset_dicts)
    unreadable: set[int] = set()
    stored = None
    if comm.get_local_rank() == 0:
        stored = _load(file, count)
        if stored is None:
            stored, unreadable = _compute(dataset_dicts, object_ids, min_area, leave_out)
            if not unreadable:
                store_arrays(file, stored)
    comm.synchronize()
    stored = stored or _load(file, count)
    if stored is None:
        stored, unreadable = _compute(dataset_dicts, object_ids, min_area, leave_out)
    ends = np.cumsum(stored["counts"])
    parts = zip(*(np.split(stored[name], ends)[: len(ends)] for name in ("boxes", "classes")), strict=True)
    return [
        {**record, "boxes": boxes, "box_classes": ids}
        for index, (record, (boxes, ids)) in enumerate(zip(dataset_dicts, parts, strict=True))
        if index not in unreadable
    ]


def _compute(
    dataset_dicts: Sequence[dict[str, Any]], object_ids: Sequence[int], min_area: int, leave_out: LeaveOut
) -> tuple[dict[str, np.ndarray], set[int]]:
    """The boxes of all masks, and the indices of masks that cannot be read."""
    unreadable = set()
    contiguous = np.zeros(IGNORE + 1, dtype=np.int64)
    contiguous[list(object_ids)] = np.arange(len(object_ids))
    boxes, classes = [np.zeros((0, 4), dtype=np.float32)], [np.zeros(0, dtype=np.int64)]
    for index, record in enumerate(tqdm(dataset_dicts, desc="boxes of masks", unit="mask", delay=5)):
        try:
            found, ids = boxes_of_record(record, read_record_mask(record), object_ids, min_area)
        except InputError as error:
            leave_out(record, error)
            unreadable.add(index)
            found, ids = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
        boxes.append(found.astype(np.float32))
        classes.append(contiguous[ids])
    counts = np.array([len(found) for found in boxes[1:]], dtype=np.int64)
    return {"boxes": np.concatenate(boxes), "classes": np.concatenate(classes), "counts": counts}, unreadable


def _cache_file(dataset_dicts: Sequence[dict[str, Any]], object_ids: Sequence[int], min_area: int) -> Path:
    key = hashlib.sha256(repr((_VERSION, tuple(object_ids), min_area)).encode())
    for record in dataset_dicts:
        state = file_state(record["sem_seg_file_name"])
        how = record.get("sem_seg_ignore", IGNORE), record.get("exif", APPLY), record.get("window")
        key.update(repr((*state, *how)).encode())
    return cache_file(f"boxes_{key.hexdigest()[:32]}.npz")


def _load(file: Path, count: int) -> dict[str, np.ndarray] | None:
    """The stored boxes of `count` masks; None if there are none or they are inconsistent."""
    stored = load_arrays(file, ("boxes", "classes", "counts"))
    if stored is None:
        return None
    boxes, classes, counts = stored.values()
    whole = counts.shape == (count,) and boxes.shape == (counts.sum(), 4) and classes.shape == boxes.shape[:1]
    return stored if whole else None
