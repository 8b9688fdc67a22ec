"""The detections of a trained detector, stored once for training a segmenter and for judging pseudo-labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor

from ..structures import Detections
from ..utils.errors import InputError
from .file_cache import write_arrays

VERSION = 1  # of the file's layout
_ARRAYS = ("names", "sizes", "counts", "boxes", "scores", "classes")

ImageDetections = tuple[tuple[int, int], Detections]
"""(height, width) of an image in pixels, (0, 0) if it could not be read, and what was detected in it."""


@dataclass(frozen=True)
class CacheMetadata:
    """What the detections of a file have in common.

    Attributes:
        detector: SHA-256 digest of the detector's checkpoint.
        classes: names of all semantic classes, in the order of their ids.
        min_score: detections with a lower score were not stored.
        version: of the file's layout.
    """

    detector: str
    classes: tuple[str, ...]
    min_score: float
    version: int = VERSION


class DetectionCache(Mapping[str, ImageDetections]):
    """The detections of many images by `image_key`, in a file that holds arrays alone.

    Images go by their `image_id`, which a data set's description derives from the list's line and not from the place
    of the data: the file keeps fitting when the data moves. The detections of all images lie in three tensors, which
    the workers of a loader share.
    """

    def __init__(
        self, metadata: CacheMetadata, sizes: Mapping[str, tuple[int, int]], counts: Tensor, detections: Detections
    ) -> None:
        """Hold the detections of I images.

        Args:
            metadata: of all of them.
            sizes: (height, width) of each image by its key.
            counts: (I,) int64, the number of detections in each image.
            detections: those of the first image, then those of the second one, and so on.
        """
        self.metadata = metadata
        self.path = ""  # of the file that it was loaded from, for messages
        ends = counts.cumsum(0)
        rows = zip((ends - counts).tolist(), ends.tolist(), strict=True)
        self._places = dict(zip(sizes, zip(sizes.values(), rows, strict=True), strict=True))
        self._detections = detections

    @classmethod
    def from_images(cls, metadata: CacheMetadata, images: Mapping[str, ImageDetections]) -> DetectionCache:
        """Collect the detections of single images, by `image_key`."""
        found = [detections for _, detections in images.values()]
        counts = torch.tensor([len(detections.scores) for detections in found], dtype=torch.int64)
        # `none` gives shapes and types where there are no images.
        everything = Detections(*map(torch.cat, zip(Detections.none(), *found, strict=True)))
        return cls(metadata, {key: size for key, (size, _) in images.items()}, counts, everything)

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
            cache = cls(*_read(path))
        except InputError:
            raise
        except Exception as error:  # its readers raise anything at all on bytes that are something else
            raise InputError(f"{path}: is not a file of boxes; make it anew with tools/cache_boxes.py") from error
        cache.path = str(path)
        return cache

    def save(self, path: str | Path) -> None:
        """Write a file, compressed; it is whole or absent.

        Raises:
            InputError: the disk refuses it.
        """
        boxes, scores, classes = (field.numpy() for field in self._detections)
        arrays = {
            "origin": np.array(json.dumps(asdict(self.metadata))),
            "names": np.array(list(self), dtype=np.str_),
            "sizes": np.array([size for size, _ in self._places.values()], dtype=np.int32).reshape(-1, 2),
            "counts": np.array([end - start for _, (start, end) in self._places.values()], dtype=np.int64),
            "boxes": boxes,
            "scores": scores,
            "classes": classes.astype(np.uint8),
        }
        write_arrays(Path(path), arrays)

    def __getitem__(self, key: str) -> ImageDetections:
        """The size of an image and its detections."""
        size, (start, end) = self._places[key]
        # Copied: a view would take the memory of all images along to another process.
        return size, Detections(*(field[start:end].clone() for field in self._detections))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        """The number of images."""
        return len(self._places)

    def detections(self, record: Mapping[str, Any], size: tuple[int, int]) -> Detections:
        """The detections of a dataset dict's image.

        Args:
            record: of an image that the cache has (see `check_fits`).
            size: (height, width) of the image as it is now.

        Raises:
            InputError: the detector saw an image of another size.
        """
        known, detections = self[image_key(record)]
        if known != size:
            raise InputError(
                f"{record['file_name']}: is {size[1]}x{size[0]}, but its boxes were found on {known[1]}x{known[0]}; "
                "make the file of boxes anew with tools/cache_boxes.py"
            )
        return detections

    def check_fits(self, classes: Sequence[str], min_score: float, records: Sequence[Mapping[str, Any]]) -> None:
        """Check that the detections are those that a run asks for.

        Args:
            classes: names of the data set's semantic classes.
            min_score: the least score of a detection that will be used.
            records: dataset dicts of the images.

        Raises:
            InputError: classes, scores or images are missing.
        """
        if tuple(classes) != self.metadata.classes:
            raise InputError(
                f"{self.path}: has boxes for the classes {', '.join(self.metadata.classes)}, but the data set's are "
                f"{', '.join(classes)}; make it with a detector that was trained on this data set"
            )
        if min_score < self.metadata.min_score:
            raise InputError(
                f"RPPI.BOX_SCORE: {min_score} is below {self.metadata.min_score}, the least score in {self.path}; "
                "raise it, or cache a detector with a lower MODEL.ROI_HEADS.SCORE_THRESH_TEST"
            )
        missing = [key for key in map(image_key, records) if key not in self._places]
        if missing:
            raise InputError(
                f"{self.path}: lacks {len(missing)} of {len(records)} images, such as {missing[0]}; "
                "add them: run tools/cache_boxes.py again with the same --output and the --dataset that they are of"
            )

    def scores(self, records: Iterable[Mapping[str, Any]]) -> Tensor:
        """The scores (N,) of all detections in the images of dataset dicts."""
        return torch.cat([torch.zeros(0), *(self[image_key(record)][1].scores for record in records)])


def _read(path: str | Path) -> tuple[CacheMetadata, dict[str, tuple[int, int]], Tensor, Detections]:
    """What `DetectionCache` takes."""
    with np.load(path, allow_pickle=False) as stored:
        header = json.loads(str(stored["origin"]))
        names, sizes, counts, *rows = (stored[key] for key in _ARRAYS)
    if header["version"] != VERSION:
        raise InputError(f"{path}: has layout {header['version']}, not {VERSION}; make it anew")
    metadata = CacheMetadata(**{**header, "classes": tuple(header["classes"])})
    total = int(counts.sum())
    shapes = [array.shape for array in rows]
    if counts.dtype.kind != "i" or counts.min(initial=0) < 0 or shapes != [(total, 4), (total,), (total,)]:
        raise ValueError("its arrays do not go together")
    places = {str(name): (int(height), int(width)) for name, (height, width) in zip(names, sizes, strict=True)}
    boxes, scores, classes = map(torch.from_numpy, rows)
    return metadata, places, torch.from_numpy(counts), Detections(boxes, scores, classes.long())


def load_detection_cache(
    cfg: CfgNode, classes: Sequence[str], records: Sequence[Mapping[str, Any]]
) -> DetectionCache | None:
    """The file of `MODEL.DETECTOR.CACHE`, checked against the images that it is for.

    Args:
        cfg: the config.
        classes: names of the data set's semantic classes.
        records: dataset dicts of all images whose detections will be asked for.

    Returns:
        None unless MODEL.DETECTOR.MODE is cached.

    Raises:
        InputError: the key is empty, or the file is missing, damaged or does not fit.
    """
    if cfg.MODEL.DETECTOR.MODE != "cached":
        return None
    if not cfg.MODEL.DETECTOR.CACHE:
        raise InputError(
            "MODEL.DETECTOR.CACHE: empty, with MODEL.DETECTOR.MODE cached it names the file of boxes; "
            "make one with tools/cache_boxes.py"
        )
    cache = DetectionCache.load(cfg.MODEL.DETECTOR.CACHE)
    cache.check_fits(classes, cfg.RPPI.BOX_SCORE, records)
    return cache


def image_key(record: Mapping[str, Any]) -> str:
    """What an image goes by in a detection cache."""
    return str(record["image_id"])
