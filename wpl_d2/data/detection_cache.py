"""Boxes of a trained detector, kept in one file for the training of a segmenter and for judging pseudo-labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances

from ..utils.errors import InputError
from ..utils.files import replace_file, writing

VERSION = 1  # of the file's layout
_ARRAYS = ("names", "sizes", "counts", "boxes", "scores", "classes")


class ImageBoxes(NamedTuple):
    """The boxes of one image.

    Attributes:
        size: (height, width) of the image in pixels; (0, 0) if it could not be read.
        boxes: (N, 4) float32 xyxy in pixels of the image, half-open.
        scores: (N,) float32 in [0, 1].
        classes: (N,) int64, semantic class ids.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    @classmethod
    def none(cls) -> ImageBoxes:
        """Those of an image that could not be read."""
        return cls((0, 0), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True)
class CacheMetadata:
    """What the boxes of a file have in common.

    Attributes:
        detector: digest of the detector's checkpoint.
        classes: names of all semantic classes, in the order of their ids.
        min_score: boxes with a lower score were not kept.
        version: of the file's layout.
    """

    detector: str
    classes: tuple[str, ...]
    min_score: float
    version: int = VERSION


class DetectionCache:
    """Boxes by image, read from a file that holds arrays alone.

    Images go by their `image_id`, which a data set's description derives from the list's line and not from the place
    of the data: the file keeps fitting when the data moves.
    """

    def __init__(self, origin: CacheMetadata, images: Mapping[str, ImageBoxes], path: str = "") -> None:
        """Hold boxes.

        Args:
            origin: of all of them.
            images: by `image_key`.
            path: the file they are from, for messages.
        """
        self.origin = origin
        self.images = images
        self.path = path

    @classmethod
    def load(cls, path: str | Path) -> DetectionCache:
        """Read a file.

        Raises:
            InputError: there is none, it is damaged, or it is something else.
        """
        if not Path(path).is_file():
            raise InputError(
                f"{path}: no such file of boxes; make it with tools/cache_boxes.py, or set MODEL.DETECTOR.CACHE"
            )
        try:
            return cls(*_read(path), str(path))
        except InputError:
            raise
        except Exception as error:  # its readers raise anything at all on bytes that are something else
            raise InputError(f"{path}: is no file of boxes; make it anew with tools/cache_boxes.py") from error

    def save(self, path: str | Path) -> None:
        """Write a file, compressed; it is whole or absent.

        Raises:
            InputError: the disk refuses it.
        """
        path = Path(path)
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        found = list(self.images.values())
        arrays = {
            "origin": np.array(json.dumps(asdict(self.origin))),
            "names": np.array(list(self.images), dtype=np.str_),
            "sizes": np.array([image.size for image in found], dtype=np.int32).reshape(-1, 2),
            "counts": np.array([len(image.boxes) for image in found], dtype=np.int64),
            # The first one gives shape and type where there are no images.
            "boxes": np.concatenate([image.boxes for image in (ImageBoxes.none(), *found)]),
            "scores": np.concatenate([image.scores for image in (ImageBoxes.none(), *found)]),
            "classes": np.concatenate([image.classes for image in (ImageBoxes.none(), *found)]).astype(np.uint8),
        }

        def write(unfinished: Path) -> None:
            with unfinished.open("wb") as file:  # given a name, NumPy would add its own ending
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

        replace_file(path, write)

    def check(self, classes: Sequence[str], min_score: float) -> None:
        """Check that the boxes mean what a training takes them for.

        Args:
            classes: names of the data set's semantic classes.
            min_score: the least score of a box that will be used.

        Raises:
            InputError: they do not.
        """
        if tuple(classes) != self.origin.classes:
            raise InputError(
                f"{self.path}: has boxes for the classes {', '.join(self.origin.classes)}, but the data set's are "
                f"{', '.join(classes)}; make it with a detector that was trained on this data set"
            )
        if min_score < self.origin.min_score:
            raise InputError(
                f"RPPI.BOX_SCORE: {min_score} is below {self.origin.min_score}, the least score in {self.path}; "
                "raise it, or cache a detector with a lower MODEL.ROI_HEADS.SCORE_THRESH_TEST"
            )

    def give(self, records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Copies of dataset dicts with "detections", their `ImageBoxes`.

        Raises:
            InputError: images are missing.
        """
        records = list(records)
        missing = [image_key(record) for record in records if image_key(record) not in self.images]
        if missing:
            raise InputError(
                f"{self.path}: lacks {len(missing)} of {len(records)} images, such as {missing[0]}; "
                "add them: run tools/cache_boxes.py again with the same --output and the --dataset that they are of"
            )
        return [{**record, "detections": self.images[image_key(record)]} for record in records]


def _read(path: str | Path) -> tuple[CacheMetadata, dict[str, ImageBoxes]]:
    with np.load(path, allow_pickle=False) as stored:
        header = json.loads(str(stored["origin"]))
        names, sizes, counts, *rows = (stored[key] for key in _ARRAYS)
    if header["version"] != VERSION:
        raise InputError(f"{path}: has layout {header['version']}, not {VERSION}; make it anew")
    origin = CacheMetadata(**{**header, "classes": tuple(header["classes"])})
    total = int(counts.sum())
    if counts.min(initial=0) < 0 or [array.shape for array in rows] != [(total, 4), (total,), (total,)]:
        raise ValueError("its arrays do not go together")
    parts = (np.split(array, np.cumsum(counts))[: len(counts)] for array in rows)
    return origin, {
        str(name): ImageBoxes((int(size[0]), int(size[1])), boxes, scores, classes.astype(np.int64))
        for name, size, boxes, scores, classes in zip(names, sizes, *parts, strict=True)
    }


def load_detection_cache(cfg: CfgNode, dataset_name: str, min_score: float) -> DetectionCache:
    """The boxes of `MODEL.DETECTOR.CACHE`, checked against the data set that they are for.

    Args:
        cfg: the config.
        dataset_name: registered; its metadata names the classes.
        min_score: the least score of a box that will be used.

    Raises:
        InputError: the key is empty, or the file is missing, damaged or does not fit.
    """
    if not cfg.MODEL.DETECTOR.CACHE:
        raise InputError(
            "MODEL.DETECTOR.CACHE: empty, with MODEL.DETECTOR.MODE cached it names the file of boxes; "
            "make one with tools/cache_boxes.py"
        )
    cache = DetectionCache.load(cfg.MODEL.DETECTOR.CACHE)
    cache.check(MetadataCatalog.get(dataset_name).stuff_classes, min_score)
    return cache


def image_key(record: Mapping[str, Any]) -> str:
    """What an image goes by in a file of boxes."""
    return str(record["image_id"])


def check_size(record: Mapping[str, Any], size: tuple[int, int]) -> None:
    """Check that the boxes of a dataset dict are of an image of this size.

    Args:
        record: of `DetectionCache.give`.
        size: (height, width) of the image.

    Raises:
        InputError: another image was there when the boxes were found.
    """
    known = record["detections"].size
    if known != size:
        raise InputError(
            f"{record['file_name']}: is {size[1]}x{size[0]}, but its boxes were found on {known[1]}x{known[0]}; "
            "make the file of boxes anew with tools/cache_boxes.py"
        )


def to_instances(boxes: Boxes, found: ImageBoxes, size: tuple[int, int]) -> Instances:
    """Boxes of a view, with the scores and classes of the image's.

    Args:
        boxes: (N, 4) in pixels of the view.
        found: the image's own.
        size: (height, width) of the view.

    Returns:
        with `pred_boxes`, `scores` and `class_ids`, semantic class ids.
    """
    scores, classes = torch.from_numpy(found.scores), torch.from_numpy(found.classes)
    return Instances(size, pred_boxes=boxes, scores=scores, class_ids=classes)
