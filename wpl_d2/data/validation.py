"""The checks of a run's data before its first step: lists, files, masks.

A list is checked for overlaps and missing files; its images and masks are then read to their last pixel, so that a
broken file does not stop a run at its end. Files that passed are remembered (`VerifiedFiles`), so that only new and
changed ones are read at the next start.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..structures import IGNORE
from ..utils.errors import InputError
from .label_statistics import LabelStatistics
from .loader import load_records, missing_mask
from .verified_files import read_files, verified_files
from .windows import image_name

SAMPLE = 32
"""Images of each list that are read before training where DATASETS.VERIFY_FILES is off."""
_MAX_SHOWN = 5
_logger = logging.getLogger(__name__)

Records = list[dict[str, Any]]


class _ReadList(NamedTuple):
    """Images to read before training: all that are trained on with labels, or one list that is evaluated on."""

    where: str
    dataset: str
    records: Records
    for_training: bool


def check_training_data(cfg: CfgNode) -> None:
    """Check the lists of a config, after `setup_datasets`, in one process.

    Lists must not be empty, their files must exist, and labeled, unlabeled and test images must be disjoint. All images
    and masks that are trained on with labels or evaluated on must be readable to their end, and masks must fit their
    images and the classes; with `DATASETS.VERIFY_FILES` off, a sample of each list is checked. Labeled masks must show
    two classes. Classes without pixels, a large share of pixels without a class, and images that are listed twice are
    warnings.

    Raises:
        InputError: every problem on a line of its own: `file-or-key: what is wrong; how to mend it`.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN: names no list; name a labeled one")
    evaluates = cfg.TEST.EVAL_PERIOD > 0
    train = _load("DATASETS.TRAIN", cfg.DATASETS.TRAIN)
    unlabeled = _load("DATASETS.UNLABELED", cfg.DATASETS.UNLABELED, labels=False)
    test = _load("DATASETS.TEST", cfg.DATASETS.TEST, optional=not evaluates)
    judged = _load("TEST.PSEUDO_LABELS", cfg.TEST.PSEUDO_LABELS) if evaluates else {}
    with_masks, bare = {"DATASETS.TRAIN": train, "TEST.PSEUDO_LABELS": judged}, {"DATASETS.UNLABELED": unlabeled}
    if evaluates:
        (bare if cfg.TEST.EVALUATOR == "submission" else with_masks)["DATASETS.TEST"] = test
    problems = [
        problem
        for key, lists in (with_masks | bare).items()
        for records in lists.values()
        for problem in _missing_files(records, key, key in with_masks)
    ]
    labeled = _join(train)
    problems += find_overlap(labeled, _join(unlabeled), "both labeled and unlabeled")
    problems += find_overlap(labeled + _join(unlabeled), _join(test), "trained and tested on")
    if not problems:
        to_read = [_ReadList(", ".join(train), cfg.DATASETS.TRAIN[0], labeled, for_training=True)]
        to_read += [_ReadList(name, name, records, for_training=False) for name, records in judged.items()]
        for name, records in test.items() if evaluates else ():
            own = records if "DATASETS.TEST" in with_masks else _without_masks(records)
            to_read.append(_ReadList(name, name, own, for_training=False))
        problems = _check_files(to_read, cfg)
    if problems:
        more = [f"... and {len(problems) - _MAX_SHOWN} more"] if len(problems) > _MAX_SHOWN else []
        raise InputError("\n".join(problems[:_MAX_SHOWN] + more))


def find_overlap(ours: Records, theirs: Records, fault: str) -> list[str]:
    """A problem if two lists share images, by whatever paths.

    Args:
        ours: dataset dicts.
        theirs: dataset dicts.
        fault: what an image in both is, for the message.
    """
    known = {os.path.realpath(record["file_name"]) for record in ours}
    common = [record["file_name"] for record in theirs if os.path.realpath(record["file_name"]) in known]
    if not common:
        return []
    more = f", and so are {len(common) - 1} more" if len(common) > 1 else ""
    return [f"{common[0]}: is {fault}{more}; make the lists disjoint"]


def find_repeated(records: Records) -> list[str]:
    """The images that a list has more than once."""
    return [name for name, count in Counter(map(image_name, records)).items() if count > 1]


def _load(key: str, names: Sequence[str], optional: bool = False, labels: bool = True) -> dict[str, Records]:
    lists = {name: load_records(name, key, optional, labels) for name in names}
    return {name: records for name, records in lists.items() if records}


def _join(lists: dict[str, Records]) -> Records:
    return [record for records in lists.values() for record in records]


def _without_masks(records: Records) -> Records:
    return [{key: value for key, value in record.items() if key != "sem_seg_file_name"} for record in records]


def _missing_files(records: Records, key: str, masks: bool) -> list[str]:
    problems = []
    for record in records:
        if not os.path.isfile(record["file_name"]):
            problems.append(f"{record['file_name']}: is in {key}, but missing; restore or unlist it")
        elif masks and "sem_seg_file_name" not in record:
            problems.append(missing_mask(record, key))
    return problems


def _check_files(to_read: Sequence[_ReadList], cfg: CfgNode) -> list[str]:
    """Problems of the lists' files, and of what their masks label."""
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    verified = verified_files(cfg)
    problems = []
    for name, dataset, records, for_training in to_read:
        repeated = find_repeated(records)
        if repeated:
            _logger.warning(
                "%s: has %d images more than once, such as %s, and each time counts; remove it if that is not meant",
                *(name, len(repeated), repeated[0]),
            )
        count = len(records) if cfg.DATASETS.VERIFY_FILES else min(SAMPLE, len(records))
        chosen = [records[i] for i in np.linspace(0, len(records) - 1, count).astype(int)]
        pixels, unfit = read_files(chosen, verified, f"reading {name}")
        problems += unfit
        if not unfit:
            whole = count == len(records)
            where = name if whole else f"{name} ({count} of its {len(records)} masks)"
            classes = MetadataCatalog.get(dataset).get("stuff_classes", [str(i) for i in range(num_classes)])
            ignore = None if "sem_seg_source" in chosen[0] else chosen[0].get("sem_seg_ignore", IGNORE)
            labels = LabelStatistics(where, pixels, classes, ignore, for_training)
            problems += _check_labels(labels, whole, cfg)
    return problems


def _check_labels(labels: LabelStatistics, whole: bool, cfg: CfgNode) -> list[str]:
    """The problem that rules out training on a list; what its user may not have meant is a warning."""
    # A detector alone needs no second class.
    problem = labels.problem() if cfg.MODEL.DETECTOR.MODE != "alone" else ""
    if problem and labels.for_training and whole:
        return [problem]
    notes = [problem] if problem else [labels.void_note(), labels.empty_note() if whole else ""]
    for note in filter(None, notes):
        _logger.warning("%s", note)
    return []
