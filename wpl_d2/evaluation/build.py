"""From config to evaluators."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, SemSegEvaluator
from numpy.typing import NDArray

from ..data import read_mask
from ..data.headers import APPLY
from ..errors import InputError, check_name
from ..structures import IGNORE
from .confusion import SemSegConfusionEvaluator
from .detection import build_box_evaluator
from .inference import judged_crop
from .label_files import LabelFiles
from .left_out import NOTHING, LeftOut
from .records import records_with_masks

EVALUATORS = ("confusion", "detectron2", "label_files")


def build_evaluator(
    cfg: Any, dataset_name: str, output_dir: str | Path, left_out: LeftOut = NOTHING
) -> DatasetEvaluator:
    """Segmentation metrics by `TEST.EVALUATOR`, and box AP where the model has, or is, a detector.

    All processes must call it.

    Args:
        cfg: a complete config.
        dataset_name: registered as `wpl_d2.data.register` does.
        output_dir: for files of the evaluators.
        left_out: takes the images without a mask, or with a broken one where boxes come from masks. Detectron2's
            evaluator takes none without.

    Raises:
        InputError: no evaluator of that name, one that does not go with TEST.INFERENCE or the classes, or an image
            without a mask where nothing may be left out.
    """
    if cfg.MODEL.DETECTOR.MODE == "alone":
        return build_box_evaluator(dataset_name, output_dir, cfg.DATASETS.MIN_BOX_AREA, left_out)
    name = check_evaluator(cfg)
    if name == "label_files":
        return LabelFiles(dataset_name, output_dir)
    classes, padding = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.TEST.INFERENCE.JUDGE_PADDING
    evaluators: list[DatasetEvaluator] = [
        SemSegConfusionEvaluator(dataset_name, classes, judged_crop(cfg), padding, left_out)
        if name == "confusion"
        else build_detectron2_evaluator(dataset_name, output_dir)
    ]
    if cfg.MODEL.DETECTOR.MODE == "shared":
        evaluators.append(build_box_evaluator(dataset_name, output_dir, cfg.DATASETS.MIN_BOX_AREA, left_out))
    return DatasetEvaluators(evaluators)


def check_evaluator(cfg: Any) -> str:
    """The name in `TEST.EVALUATOR`, if segmentation can be judged by it.

    Args:
        cfg: a complete config.

    Raises:
        InputError: no evaluator of that name, or one that does not go with TEST.INFERENCE.
    """
    name = check_name("TEST.EVALUATOR", cfg.TEST.EVALUATOR, EVALUATORS)
    if judged_crop(cfg) and name != "confusion":
        raise InputError(
            f"TEST.EVALUATOR: {name} judges the whole image; set confusion, or TEST.INFERENCE.MODE to whole"
        )
    if cfg.TEST.INFERENCE.JUDGE_PADDING and not judged_crop(cfg):
        raise InputError(
            f"TEST.INFERENCE.JUDGE_PADDING: True, but MODE {cfg.TEST.INFERENCE.MODE} pads nothing that is judged; "
            "set MODE crop, or this to False"
        )
    return name


def build_detectron2_evaluator(dataset_name: str, output_dir: str | Path) -> SemSegEvaluator:
    """Detectron2's own evaluator, reading masks as this project does (its own reader fails under numpy 2).

    Args:
        dataset_name: registered as `wpl_d2.data.register` does.
        output_dir: for its predictions and results.

    Raises:
        InputError: an image has no mask.
    """
    records_with_masks(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    load = partial(_load_mask, metadata.get("mask_ignore", IGNORE), metadata.get("exif", APPLY))
    return SemSegEvaluator(dataset_name, output_dir=str(output_dir), sem_seg_loading_fn=load)


def _load_mask(ignore: int, exif: str, path: str, dtype: type = int) -> NDArray[Any]:
    return read_mask(path, ignore, exif).astype(np.dtype(dtype))
