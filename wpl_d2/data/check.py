"""The check of the training data that runs before the first step: cheap, and in words."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..errors import InputError
from .loader import list_records, missing_mask
from .mappers import read_labels
from .masks import read_image

_logger = logging.getLogger(__name__)
MASKS_TO_READ = 32
"""Masks of each list that are read before training; a list that is not longer is read whole."""
_MAX_SHOWN = 5
Records = list[dict[str, Any]]


def check_training_data(cfg: CfgNode) -> None:
    """Check the lists of a config, after `setup_datasets`.

    Lists must not be empty, their files must exist, labeled, unlabeled and test images must be different
    ones, and some masks of every list that is learned from or measured on must fit their images and the classes. A
    class that a short labeled list never shows gets a warning.

    Raises:
        InputError: all that is wrong, a line for each: `file-or-key: what is wrong; how to mend it`.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN: names no list; name a labeled one")
    evaluates = cfg.TEST.EVAL_PERIOD > 0
    train = _load("DATASETS.TRAIN", cfg.DATASETS.TRAIN)
    unlabeled = _load("DATASETS.UNLABELED", cfg.DATASETS.UNLABELED)
    test = _load("DATASETS.TEST", cfg.DATASETS.TEST, optional=not evaluates)
    judged = _load("TEST.PSEUDO_LABELS", cfg.TEST.PSEUDO_LABELS) if evaluates else []
    masked, bare = {"DATASETS.TRAIN": train, "TEST.PSEUDO_LABELS": judged}, {"DATASETS.UNLABELED": unlabeled}
    if evaluates:
        (bare if cfg.TEST.EVALUATOR == "label_files" else masked)["DATASETS.TEST"] = test
    problems = [
        problem for key, records in (masked | bare).items() for problem in _missing(records, key, key in masked)
    ]
    problems += find_overlap(train, unlabeled, "both labeled and unlabeled")
    problems += find_overlap(train + unlabeled, test, "trained and tested on")
    if not problems:
        problems = _wrong_masks(masked, cfg)
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


def _load(key: str, names: Sequence[str], optional: bool = False) -> Records:
    return [record for name in names for record in list_records(name, key, optional)]


def _missing(records: Records, key: str, masks: bool) -> list[str]:
    problems = []
    for record in records:
        if not os.path.isfile(record["file_name"]):
            problems.append(f"{record['file_name']}: is in {key}, but missing; restore or unlist it")
        elif masks and "sem_seg_file_name" not in record:
            problems.append(missing_mask(record, key))
    return problems


def _wrong_masks(lists: dict[str, Records], cfg: CfgNode) -> list[str]:
    """What is wrong with some of the masks of each list; the classes that a short labeled one lacks get a warning."""
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    problems = []
    for key, records in lists.items():
        chosen = np.linspace(0, len(records) - 1, min(len(records), MASKS_TO_READ)).astype(int)
        pixels = np.zeros(256, dtype=np.int64)
        for record in (records[i] for i in chosen):
            try:
                mask = read_labels(record, read_image(record["file_name"]).shape[:2], num_classes)
                pixels += np.bincount(mask.ravel(), minlength=256)
            except InputError as error:
                problems.append(str(error))
        if key == "DATASETS.TRAIN" and not problems and len(chosen) == len(records):
            _warn_of_empty_classes(pixels[:num_classes], cfg.DATASETS.TRAIN)
    return problems


def _warn_of_empty_classes(pixels: np.ndarray, names: Sequence[str]) -> None:
    classes = MetadataCatalog.get(names[0]).get("stuff_classes", [str(i) for i in range(len(pixels))])
    for name, count in zip(classes, pixels, strict=True):
        if count == 0:
            _logger.warning("%s: no pixel is labeled %r; it cannot be learned, choose other images", names[0], name)
