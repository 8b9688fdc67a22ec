"""The check of the data that runs before the first step, in words: lists, files, masks."""

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
from .loader import list_records, missing_mask
from .verification import VerifiedFiles, verify

_logger = logging.getLogger(__name__)
SAMPLE = 32
"""Images of each list that are read before training where DATASETS.VERIFY_FILES is off."""
_MAX_SHOWN = 5
Records = list[dict[str, Any]]


class _Read(NamedTuple):
    """Images that are read before training: those that are learned from together, or one list that is measured on."""

    where: str
    dataset: str
    records: Records
    learned: bool


def check_training_data(cfg: CfgNode) -> None:
    """Check the lists of a config, after `setup_datasets`. Needs no other process.

    Lists must not be empty, their files must exist, labeled, unlabeled and test images must be different ones. All
    images and masks that are learned from with labels or measured on (with `DATASETS.VERIFY_FILES` off, some of each
    list) must be whole, and masks must fit their images and the classes. Labeled masks must show two classes. A class
    that they never show, a large part without a class and an image that is listed twice get a warning.

    Raises:
        InputError: all that is wrong, a line for each: `file-or-key: what is wrong; how to mend it`.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN: names no list; name a labeled one")
    evaluates = cfg.TEST.EVAL_PERIOD > 0
    train = _load("DATASETS.TRAIN", cfg.DATASETS.TRAIN)
    unlabeled = _load("DATASETS.UNLABELED", cfg.DATASETS.UNLABELED)
    test = _load("DATASETS.TEST", cfg.DATASETS.TEST, optional=not evaluates)
    judged = _load("TEST.PSEUDO_LABELS", cfg.TEST.PSEUDO_LABELS) if evaluates else {}
    masked, bare = {"DATASETS.TRAIN": train, "TEST.PSEUDO_LABELS": judged}, {"DATASETS.UNLABELED": unlabeled}
    if evaluates:
        (bare if cfg.TEST.EVALUATOR == "submission" else masked)["DATASETS.TEST"] = test
    problems = [
        problem
        for key, lists in (masked | bare).items()
        for records in lists.values()
        for problem in _missing(records, key, key in masked)
    ]
    labeled = _all(train)
    problems += find_overlap(labeled, _all(unlabeled), "both labeled and unlabeled")
    problems += find_overlap(labeled + _all(unlabeled), _all(test), "trained and tested on")
    if not problems:
        to_read = [_Read(", ".join(train), cfg.DATASETS.TRAIN[0], labeled, learned=True)]
        to_read += [_Read(name, name, records, learned=False) for name, records in judged.items()]
        for name, records in test.items() if evaluates else ():
            own = records if "DATASETS.TEST" in masked else _without_masks(records)
            to_read.append(_Read(name, name, own, learned=False))
        problems = _check_contents(to_read, cfg)
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


def find_repeated(records: Records) -> list[str]:
    """The images that a list has more than once."""
    return [path for path, count in Counter(record["file_name"] for record in records).items() if count > 1]


def _load(key: str, names: Sequence[str], optional: bool = False) -> dict[str, Records]:
    lists = {name: list_records(name, key, optional) for name in names}
    return {name: records for name, records in lists.items() if records}


def _all(lists: dict[str, Records]) -> Records:
    return [record for records in lists.values() for record in records]


def _without_masks(records: Records) -> Records:
    return [{key: value for key, value in record.items() if key != "sem_seg_file_name"} for record in records]


def _missing(records: Records, key: str, masks: bool) -> list[str]:
    problems = []
    for record in records:
        if not os.path.isfile(record["file_name"]):
            problems.append(f"{record['file_name']}: is in {key}, but missing; restore or unlist it")
        elif masks and "sem_seg_file_name" not in record:
            problems.append(missing_mask(record, key))
    return problems


def _check_contents(to_read: Sequence[_Read], cfg: CfgNode) -> list[str]:
    """What is wrong with the files of the lists, and with what their masks label."""
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    passed = VerifiedFiles(cfg.DATASETS.DESCRIPTION or " ".join(cfg.DATASETS.TRAIN), num_classes)
    problems = []
    for name, dataset, records, learned in to_read:
        repeated = find_repeated(records)
        if repeated:
            _logger.warning(
                "%s: has %d images more than once, such as %s, and each time counts; remove it if that is not meant",
                *(name, len(repeated), repeated[0]),
            )
        count = len(records) if cfg.DATASETS.VERIFY_FILES else min(SAMPLE, len(records))
        chosen = [records[i] for i in np.linspace(0, len(records) - 1, count).astype(int)]
        pixels, wrong = verify(chosen, passed, f"reading {name}")
        problems += wrong
        if not wrong:
            whole = count == len(records)
            where = name if whole else f"{name} ({count} of its {len(records)} masks)"
            classes = MetadataCatalog.get(dataset).get("stuff_classes", [str(i) for i in range(num_classes)])
            labels = LabelStatistics(where, pixels, classes, chosen[0].get("sem_seg_ignore", IGNORE), learned)
            problems += _judge(labels, whole, cfg)
    return problems


def _judge(labels: LabelStatistics, whole: bool, cfg: CfgNode) -> list[str]:
    """The fault that forbids to learn from a list, and warnings of what its user may not have meant."""
    # A detector alone needs no second class.
    fault = labels.fault() if cfg.MODEL.DETECTOR.MODE != "alone" else ""
    if fault and labels.learned and whole:
        return [fault]
    notes = [fault] if fault else [labels.void_note(), labels.empty_note() if whole else ""]
    for note in filter(None, notes):
        _logger.warning("%s", note)
    return []
