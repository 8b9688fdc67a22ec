"""Pseudo-labels of whole images that a model has made once, stored to be learned (DATASETS.PSEUDO_LABELS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from detectron2.config import CfgNode
from PIL import Image

from ..utils.errors import InputError
from ..utils.files import clear_write_errors, save_png
from .image_io import read_mask
from .mappers import read_labels

UNITS = 120
"""Stored weights are multiples of 1 / UNITS, up to 2: exact for 1 to 6, 8, 10 and 12 compared channels."""


class PseudoLabelStore:
    """A folder with the pseudo-labels of images: labels/ID.png, class ids, and perhaps weights/ID.png, in `UNITS`.

    ID is the percent-encoded `image_id` of the dataset dict, so that no two images share a file. An image has
    pseudo-labels if the file of its labels is there, which is the last one to be written.
    """

    def __init__(self, folder: Path, num_classes: int) -> None:
        """Use a folder, which need not exist; `num_classes` is the number of semantic classes."""
        self.folder = folder
        self.num_classes = num_classes

    def __contains__(self, record: Mapping[str, Any]) -> bool:
        return self._file("labels", record).is_file()

    def write(self, record: Mapping[str, Any], labels: np.ndarray, weight: np.ndarray | None = None) -> None:
        """Store the pseudo-labels of an image.

        Args:
            record: its dataset dict.
            labels: (H, W) class ids, of the image's size.
            weight: (H, W) float from 0 to 2, rounded to `UNITS`; None: all are 1, and no file says so.

        Raises:
            InputError: they cannot be written.
        """
        for name in ("labels", "weights"):
            with clear_write_errors(self.folder / name):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        if weight is not None:
            save_png(Image.fromarray((weight * UNITS).round().astype(np.uint8)), self._file("weights", record))
        save_png(Image.fromarray(labels.astype(np.uint8)), self._file("labels", record))

    def read(self, record: Mapping[str, Any], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The labels (H, W) uint8 and the weights (H, W) float32 of an image.

        Args:
            record: its dataset dict; the store contains it.
            size: (height, width) of the image.

        Raises:
            InputError: they cannot be read, are of another size, or of other classes.
        """
        stored = {"file_name": record["file_name"], "sem_seg_file_name": str(self._file("labels", record))}
        labels = read_labels(stored, size, self.num_classes)
        file = self._file("weights", record)
        weight = read_mask(file) if file.is_file() else np.full(size, UNITS)
        if weight.shape != labels.shape:
            raise InputError(f"{file}: is of another size than its image; remove {self.folder} to have it made anew")
        return labels, weight.astype(np.float32) / UNITS

    def _file(self, name: str, record: Mapping[str, Any]) -> Path:
        return self.folder / name / f"{quote(str(record['image_id']), safe='')}.png"


def pseudo_label_stores(cfg: CfgNode) -> list[PseudoLabelStore]:
    """The stores that DATASETS.PSEUDO_LABELS names.

    Raises:
        InputError: one is missing.
    """
    stores = [
        PseudoLabelStore(Path(cfg.OUTPUT_DIR, folder), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
        for folder in cfg.DATASETS.PSEUDO_LABELS
    ]
    for store in stores:
        if not (store.folder / "labels").is_dir():
            raise InputError(
                f"DATASETS.PSEUDO_LABELS: {store.folder} holds no pseudo-labels; put them back, or leave the key empty "
                "to have them made"
            )
    return stores


def read_stored(
    stores: Sequence[PseudoLabelStore], record: Mapping[str, Any], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """What the first store that has pseudo-labels of an image reads; see `PseudoLabelStore.read`."""
    return next(store for store in stores if record in store).read(record, size)
