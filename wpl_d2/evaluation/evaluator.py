"""The evaluation of a run: its models on every test set and, when asked for, its pseudo-labels."""

from __future__ import annotations

import logging
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, SemSegEvaluator, inference_on_dataset
from detectron2.utils import comm
from numpy.typing import NDArray

from ..config.validation import check_section
from ..data import build_test_loader, read_mask
from ..data.image_io import APPLY
from ..frameworks import Framework
from ..inference.build import build_inference, evaluated_crop
from ..structures import IGNORE
from ..utils.errors import InputError
from .detection import build_box_evaluator
from .left_out import NOTHING, LeftOut, LenientEvaluator, ReadableImages, records_with_masks
from .pseudo_labels import evaluate_pseudo_labels
from .sem_seg import SemSegConfusionEvaluator
from .submission import SubmissionWriter

logger = logging.getLogger(__name__)


def evaluate(cfg: Any, framework: Framework) -> OrderedDict[str, Any]:
    """Evaluate on `cfg.DATASETS.TEST`, and judge pseudo-labels on `cfg.TEST.PSEUDO_LABELS`.

    Args:
        cfg: a complete config; `TEST.STUDENT` adds the student where a teacher is what is deployed.
        framework: its weigher, if it has one, weighs the pseudo-labels.

    Returns:
        on the main process {"sem_seg": {"mIoU": ...}, "bbox": {...}} of the first deployable on the first test set;
        further models and sets are nested under their names, as are the sets under "pseudo_labels". Empty on other
        processes. On all of them {"left_out": {"images": ...}}, the number of those that could not be read or judged,
        if there are any.

    Raises:
        InputError: nothing could be judged, or something else than a file is wrong.
    """
    left_out = LeftOut()
    models = framework.eval_models()
    first = next(iter(models))
    names = list(models) if cfg.TEST.STUDENT else [first]
    results: OrderedDict[str, Any] = OrderedDict()
    for dataset in cfg.DATASETS.TEST:
        for name in names:
            # The student's results hold those of further sets, as the teacher's do.
            nested = results if name == first else results.setdefault(name, OrderedDict())
            if dataset != cfg.DATASETS.TEST[0]:
                nested = nested.setdefault(dataset, OrderedDict())
            nested.update(_evaluate_one(cfg, models[name], dataset, name, left_out))
    judged = {
        dataset: evaluate_pseudo_labels(cfg, models[first], framework.weigher, dataset, left_out)
        for dataset in cfg.TEST.PSEUDO_LABELS
    }
    if judged:
        results["pseudo_labels"] = judged
    if not comm.is_main_process():
        results = OrderedDict()
    left_out.gather()
    if left_out.reasons:
        _tell(cfg, left_out)
        results["left_out"] = {"images": len(left_out.reasons)}
    return results


def _tell(cfg: Any, left_out: LeftOut) -> None:
    """Name what was left out, which may not be all of a data set."""
    for reason in left_out.reasons.values():
        logger.warning("Left out of the evaluation: %s", reason)
    for dataset in (*cfg.DATASETS.TEST, *cfg.TEST.PSEUDO_LABELS):
        if all(record["file_name"] in left_out.reasons for record in DatasetCatalog.get(dataset)):
            raise InputError(f"{dataset}: not one of its images could be judged, see above; restore them")


def _evaluate_one(cfg: Any, model: Any, dataset: str, name: str, left_out: LeftOut) -> OrderedDict[str, Any]:
    logger.info("Evaluating the %s on %s", name, dataset)
    output = Path(cfg.OUTPUT_DIR) / "inference" / dataset / name
    evaluator = LenientEvaluator(build_evaluator(cfg, dataset, str(output), left_out), left_out)
    loader = ReadableImages(build_test_loader(cfg, dataset, lenient=True), left_out)
    return OrderedDict(inference_on_dataset(build_inference(cfg, model), loader, evaluator) or {})


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
        InputError: an invalid value below TEST, an evaluator that does not go with the classes, or an image without a
            mask where nothing may be left out.
    """
    check_section(cfg, "TEST")
    if cfg.MODEL.DETECTOR.MODE == "alone":
        return build_box_evaluator(dataset_name, output_dir, cfg.DATASETS.MIN_BOX_AREA, left_out)
    if cfg.TEST.EVALUATOR == "submission":
        return SubmissionWriter(dataset_name, output_dir)
    classes, padding = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.TEST.INFERENCE.JUDGE_PADDING
    evaluators: list[DatasetEvaluator] = [
        SemSegConfusionEvaluator(dataset_name, classes, evaluated_crop(cfg), padding, left_out)
        if cfg.TEST.EVALUATOR == "confusion"
        else build_detectron2_evaluator(dataset_name, output_dir)
    ]
    if cfg.MODEL.DETECTOR.MODE == "shared":
        evaluators.append(build_box_evaluator(dataset_name, output_dir, cfg.DATASETS.MIN_BOX_AREA, left_out))
    return DatasetEvaluators(evaluators)


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
