"""The evaluation of a run: every deployable model on every test set, and, when asked for, its pseudo-labels."""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog
from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm

from ..data import build_test_loader
from ..errors import InputError
from ..frameworks import Framework
from .build import build_evaluator
from .inference import build_inference
from .left_out import LeftOut, LenientEvaluator, ReadableImages
from .pseudo_labels import evaluate_pseudo_labels

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
    models = framework.deployables()
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
