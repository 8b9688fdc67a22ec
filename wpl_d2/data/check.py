"""The check of the training data that runs before the first step: cheap, and in words."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import InputError
from .loader import missing_mask
from .mappers import read_labels
from .masks import read_image

_logger = logging.getLogger(__name__)
MASKS_TO_READ = 32
"""Labeled masks that are read before training; a list that is not longer is read whole."""
_MAX_SHOWN = 5
Records = list[dict[str, Any]]


def check_training_data(cfg: CfgNode) -> None:
    """Check the lists of a config, after `setup_datasets`.

    Lists must not be empty, their files must exist, labeled, unlabeled and test images must be different
    ones, and the first labeled masks must fit their images and the classes. A class that a short labeled list
    never shows gets a warning.

    Raises:
        InputError: all that is wrong, a line for each: `file-or-key: what is wrong; how to mend it`.
    """
    lists = {key: _load(cfg, key) for key in ("TRAIN", "UNLABELED", "TEST")}
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN: names no list; name a labeled one")
    problems = _missing_files(lists)
    problems += find_overlap(lists["TRAIN"], lists["UNLABELED"], "both labeled and unlabeled")
    problems += find_overlap(lists["TRAIN"] + lists["UNLABELED"], lists["TEST"], "trained and tested on")
    if not problems:
        problems = _check_masks(lists["TRAIN"], cfg)
    if problems:
        more = [f"... and {len(problems) - _MAX_SHOWN} more"] if len(problems) > _MAX_SHOWN else []
        raise InputError("\n".join(problems[:_MAX_SHOWN] + more))


def find_overlap(ours: Records, theirs: Records, fault: str) -> list[str]:
    """Images that are in both lists, whatever their paths look like.

    Args:
        ours: dataset dicts.
        theirs: dataset dicts.
        fault: what an image in both is, for the message.

    Returns:
        A message if there are any.
    """
    known = {os.path.realpath(record["file_name"]) for record in ours}
    common = [record["file_name"] for record in theirs if os.path.realpath(record["file_name"]) in known]
    if not common:
        return []
    more = f", and so are {len(common) - 1} more" if len(common) > 1 else ""
    return [f"{common[0]}: is {fault}{more}; make the lists disjoint"]


def _load(cfg: CfgNode, key: str) -> Records:
    records: Records = []
    for name in cfg.DATASETS[key]:
        try:
            found = DatasetCatalog.get(name)
        except InputError:
            if key == "TEST" and cfg.TEST.EVAL_PERIOD <= 0:
                continue  # a run that evaluates nothing does not need it
            raise
        if not found:
            raise InputError(f"DATASETS.{key}: the list {name!r} is empty; name one with images")
        records += found
    return records


def _missing_files(lists: dict[str, Records]) -> list[str]:
    problems = []
    for key, records in lists.items():
        for record in records:
            if not os.path.isfile(record["file_name"]):
                problems.append(f"{record['file_name']}: is in DATASETS.{key}, but missing; restore or unlist it")
            elif key != "UNLABELED" and "sem_seg_file_name" not in record:
                problems.append(missing_mask(record))
    return problems


def _check_masks(records: Records, cfg: CfgNode) -> list[str]:
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    chosen = np.linspace(0, len(records) - 1, min(len(records), MASKS_TO_READ)).astype(int)
    pixels = np.zeros(256, dtype=np.int64)
    problems = []
    for record in (records[i] for i in chosen):
        try:
            mask = read_labels(record, read_image(record["file_name"]).shape[:2], num_classes)
            pixels += np.bincount(mask.ravel(), minlength=256)
        except InputError as error:
            problems.append(str(error))
    if not problems and len(chosen) == len(records):
        _warn_of_empty_classes(pixels[:num_classes], cfg.DATASETS.TRAIN)
    return problems


def _warn_of_empty_classes(pixels: np.ndarray, names: Sequence[str]) -> None:
    classes = MetadataCatalog.get(names[0]).get("stuff_classes", [str(i) for i in range(len(pixels))])
    for name, count in zip(classes, pixels, strict=True):
        if count == 0:
            _logger.warning("%s: no pixel is labeled %r; it cannot be learned, choose other images", names[0], name)
