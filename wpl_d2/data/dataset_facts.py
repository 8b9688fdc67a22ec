"""Measures of a data set that settings are fitted to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ..config.fitting import DatasetFacts, Device, Setting, fit_settings
from ..structures import IGNORE
from ..utils.errors import InputError
from .class_colors import class_colors, color_kappa
from .component_boxes import boxes_of_record
from .datasets.folder import Description, image_records
from .datasets.setup import check_registered, register_description
from .file_cache import file_state
from .image_io import read_record_mask
from .pixel_values import RGB
from .sampler import counted_seed
from .value_range import measure_channels

_SAMPLE = 200
_known: dict[tuple[Any, ...], DatasetFacts] = {}
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def fit_to_data(cfg: CfgNode, given: Mapping[str, Any]) -> list[Setting]:
    """The settings that fit the lists of a config; none where it names nothing to train on.

    Args:
        cfg: with DATASETS filled in. Data with a generator are made if they are missing.
        given: keys that are set otherwise, and their values.

    Raises:
        InputError: as of `measure_dataset`.
    """
    data = cfg.DATASETS
    if not data.TRAIN:
        return []
    description = register_description(data.DESCRIPTION)
    names = tuple(data.TRAIN), tuple(data.UNLABELED), tuple(data.TEST)
    files = [description.path, *(description.root / file for file in description.lists.values())]
    key = (*names, data.MIN_BOX_AREA, *(file_state(str(file)) for file in files if file.is_file()))
    if key not in _known:  # a run asks several times
        _known[key] = measure_dataset(description, *names, data.MIN_BOX_AREA)
    return fit_settings(_known[key], Device.present(cfg.MODEL.DEVICE), given)


def measure_dataset(
    description: Description, labeled: Sequence[str], unlabeled: Sequence[str], val: Sequence[str], min_area: int
) -> DatasetFacts:
    """Measure the labeled images of a data set, or a random sample of 200 of them, and count the others.

    Args:
        description: of the registered data set.
        labeled: names of its lists, as in DATASETS.TRAIN.
        unlabeled: as in DATASETS.UNLABELED; of these the images are only counted.
        val: as in DATASETS.TEST.
        min_area: components with fewer pixels are no boxes.

    Raises:
        InputError: a list or a mask cannot be read.
    """
    records = _records("DATASETS.TRAIN", labeled)
    masked = [record for record in records if "sem_seg_file_name" in record]
    if not masked:
        names = ", ".join(labeled) or "empty"
        raise InputError(f"DATASETS.TRAIN: {names}, without a mask to fit settings to; name a list of labeled images")
    order = np.random.default_rng(counted_seed("facts")).permutation(len(masked))[:_SAMPLE]
    with ThreadPoolExecutor() as pool:
        measured = list(pool.map(lambda i: _measure(masked[i], description, min_area), order))
    sizes = np.array([image.size for image in measured])
    boxes = np.concatenate([np.zeros((0, 4), np.int64), *(image.boxes for image in measured)])
    ids = np.concatenate([np.zeros(0, np.int64), *(image.ids for image in measured)])
    sides = boxes[:, 2:] - boxes[:, :2]
    layout = description.layout
    # Of colors the statistics of the pretraining are as good.
    statistics = () if layout.channels == RGB.channels else measure_channels([masked[i] for i in order])
    return DatasetFacts(
        labeled=max(1, round(len(records) * float(np.mean([image.is_used for image in measured])))),
        unlabeled=len(_records("DATASETS.UNLABELED", unlabeled, image_records)),
        val=len(_records("DATASETS.TEST", val)),
        size=(int(np.median(sizes[:, 0])), int(np.median(sizes[:, 1]))),
        classes=description.classes,
        boxes=tuple(round(np.count_nonzero(ids == c) * len(masked) / len(measured)) for c in description.object_ids),
        box_side=float(np.median(sides.min(axis=1))) if len(boxes) else 0.0,
        box_sizes=tuple(np.quantile(np.sqrt(sides.prod(axis=1)), _QUANTILES).tolist()) if len(boxes) else (),
        channels=statistics,
        color_kappa=color_kappa(np.stack([image.colors for image in measured])),
    )


class _Measured(NamedTuple):
    """Of an image the height and width, whether it is trained on (`labeled_records`), objects and `class_colors`."""

    size: tuple[int, ...]
    is_used: bool
    boxes: np.ndarray
    ids: np.ndarray
    colors: np.ndarray


def _measure(record: dict[str, Any], description: Description, min_area: int) -> _Measured:
    mask, classes = read_record_mask(record), len(description.classes)
    is_used = "window" not in record or bool((mask != IGNORE).any())
    boxes, ids = boxes_of_record(record, mask, description.object_ids, min_area)
    has_colors = description.layout.channels == RGB.channels
    colors = class_colors(record, mask, classes) if has_colors else np.full((classes, 2), np.nan)
    return _Measured(mask.shape, is_used, boxes, ids, colors)


def _records(
    key: str, names: Sequence[str], get: Callable[[str], list[dict[str, Any]]] = DatasetCatalog.get
) -> list[dict[str, Any]]:
    for name in names:
        check_registered(key, name)
    return [record for name in names for record in get(name)]
