"""The evaluation of a run: every deployable model on every test set, and, when asked for, its pseudo-labels."""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm

from ..data import build_test_loader
from ..frameworks import Framework
from .build import build_evaluator
from .inference import build_inference
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
        processes.
    """
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
            nested.update(_evaluate_one(cfg, models[name], dataset, name))
    judged = {
        dataset: evaluate_pseudo_labels(cfg, models[first], framework.weigher, dataset)
        for dataset in cfg.TEST.PSEUDO_LABELS
    }
    if judged:
        results["pseudo_labels"] = judged
    return results if comm.is_main_process() else OrderedDict()


def _evaluate_one(cfg: Any, model: Any, dataset: str, name: str) -> OrderedDict[str, Any]:
    logger.info("Evaluating the %s on %s", name, dataset)
    output = Path(cfg.OUTPUT_DIR) / "inference" / dataset / name
    evaluator = build_evaluator(cfg, dataset, str(output))
    inference = build_inference(cfg, model)
    return OrderedDict(inference_on_dataset(inference, build_test_loader(cfg, dataset), evaluator) or {})
