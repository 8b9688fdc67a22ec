"""The evaluation of a run: its models on every test set and, on demand, its pseudo-labels."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, SemSegEvaluator, inference_on_dataset
from detectron2.utils import comm
from numpy.typing import NDArray

from ..config.validation import check_section
from ..data import EvalDataset, read_mask
from ..data.image_header import APPLY
from ..data.loader import require_masks
from ..frameworks import Framework
from ..inference.build import build_inference, evaluated_crop
from ..structures import IGNORE
from ..utils.errors import InputError
from ..weighting import PixelWeigher
from .detection import build_box_evaluator
from .pseudo_labels import Agreement, flat_results, judge_pseudo_labels
from .sem_seg import SemSegConfusionEvaluator
from .submission import SubmissionWriter

logger = logging.getLogger(__name__)


def evaluate(cfg: Any, framework: Framework, distributed: Distributed | None = None) -> OrderedDict[str, Any]:
    """Evaluate on `cfg.DATASETS.TEST`, and judge pseudo-labels on `cfg.TEST.PSEUDO_LABELS`.

    Args:
        cfg: a complete config; with `TEST.STUDENT` the student is evaluated beside its teacher.
        framework: its weigher, if it has one, weighs the pseudo-labels.
        distributed: what evaluates in place of the models here, of the same weights; by default they do.

    Returns:
        on the main process {"sem_seg": {"mIoU": ...}, "bbox": {...}} of the first model on the first test set; those of
        further models and sets are nested under their names, as are the sets under "pseudo_labels". Empty on other
        processes. On all of them {"left_out": {"images": ...}}, the number of images that could not be read or judged,
        if there are any.

    Raises:
        InputError: no image of a data set could be judged, or something other than a file is wrong.
    """
    datasets = _build_datasets(cfg)
    models = framework.eval_models()
    first = next(iter(models))
    results: OrderedDict[str, Any] = OrderedDict()
    for dataset in cfg.DATASETS.TEST:
        for name in models if cfg.TEST.STUDENT else [first]:
            # The student's results hold those of further sets, as the teacher's do.
            nested = results if name == first else results.setdefault(name, OrderedDict())
            if dataset != cfg.DATASETS.TEST[0]:
                nested = nested.setdefault(dataset, OrderedDict())
            nested.update(_evaluate_model(cfg, datasets[dataset], models[name], name, distributed))
    judge = distributed.judge if distributed else judge_pseudo_labels
    judged = {
        name: flat_results(*judge(cfg, models[first], framework.weigher, datasets[name]))
        for name in cfg.TEST.PSEUDO_LABELS
    }
    if judged:
        results["pseudo_labels"] = judged
    if not comm.is_main_process():
        results = OrderedDict()
    if left_out := _report_left_out(datasets.values()):
        results["left_out"] = {"images": left_out}
    return results


class Distributed(Protocol):
    """An evaluation by other processes; see `wpl_d2.evaluation.parts`."""

    def count(self, cfg: Any, name: str, dataset: EvalDataset, total: LenientEvaluator, folder: Path) -> None:
        """Add the counts of a model to `total`.

        Args:
            cfg: a complete config.
            name: of the model in `Framework.eval_models`.
            dataset: of the images.
            total: an evaluator of them.
            folder: keeps what is done while the job is not.
        """

    def judge(
        self, cfg: Any, model: Any, weigher: PixelWeigher | None, dataset: EvalDataset
    ) -> tuple[dict[str, float], Agreement | None]:
        """As `judge_pseudo_labels`."""


def _build_datasets(cfg: Any) -> dict[str, EvalDataset]:
    """The data sets of an evaluation by name; one that is named twice is read once."""
    keys = dict.fromkeys(cfg.TEST.PSEUDO_LABELS, "TEST.PSEUDO_LABELS") | dict.fromkeys(
        cfg.DATASETS.TEST, "DATASETS.TEST"
    )
    return {name: EvalDataset(cfg, name=name, key=key, lenient=True) for name, key in keys.items()}


def _evaluate_model(
    cfg: Any, dataset: EvalDataset, model: Any, name: str, distributed: Distributed | None
) -> OrderedDict[str, Any]:
    logger.info("Evaluating the %s on %s", name, dataset.name)
    output = Path(cfg.OUTPUT_DIR) / "inference" / dataset.name / name
    evaluator = LenientEvaluator(build_evaluator(cfg, dataset, output), dataset)
    if distributed is None:
        return OrderedDict(inference_on_dataset(build_inference(cfg, model), dataset.loader(), evaluator) or {})
    evaluator.reset()
    distributed.count(cfg, name, dataset, evaluator, output)
    return OrderedDict(evaluator.evaluate() or {})


def _report_left_out(datasets: Collection[EvalDataset]) -> int:
    """Log which images were left out on any process, and return their number. All processes must call it."""
    reasons: dict[str, str] = {}
    for dataset in datasets:
        dataset.gather_left_out()
        reasons = dataset.left_out | reasons
    for reason in reasons.values():
        logger.warning("Left out of the evaluation: %s", reason)
    for dataset in datasets:
        if all(record["file_name"] in reasons for record in dataset.records):
            raise InputError(f"{dataset.name}: not one of its images could be judged, see above; restore them")
    return len(reasons)


class Evaluator(Protocol):
    """An evaluator whose counts can be added to those of another one."""

    def state(self) -> Any:
        """What was counted since `reset`, as plain containers of tensors, numbers and texts."""

    def add_state(self, state: Any) -> None:
        """Add what another one has counted, as of `state`."""


class LenientEvaluator(DatasetEvaluator):
    """An evaluator that leaves out images that it cannot judge, such as those with a broken mask."""

    def __init__(self, evaluator: DatasetEvaluator, dataset: EvalDataset) -> None:
        """Wrap an evaluator.

        Args:
            evaluator: raises an `InputError` for an image that it cannot judge, before it counts anything of it.
            dataset: the images are left out of it.
        """
        self._evaluator = evaluator
        self._dataset = dataset

    def reset(self) -> None:
        """Forget all images."""
        self._evaluator.reset()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Judge one image: lists of one dict of `EvalMapper` and one of the model."""
        try:
            self._evaluator.process(inputs, outputs)
        except InputError as error:
            self._dataset.leave_out(inputs[0], error)

    def state(self) -> list[Any]:
        """What was counted, as of `Evaluator`."""
        return [part.state() for part in self._parts]

    def add_state(self, state: list[Any]) -> None:
        """Add what another one has counted, as of `state`."""
        for part, own in zip(self._parts, state, strict=True):
            part.add_state(own)

    @property
    def _parts(self) -> list[Evaluator]:
        several = isinstance(self._evaluator, DatasetEvaluators)
        return self._evaluator._evaluators if several else [self._evaluator]

    def evaluate(self) -> Any:
        """The wrapped evaluator's results."""
        return self._evaluator.evaluate()


def build_evaluator(cfg: Any, dataset: EvalDataset, output_dir: str | Path) -> DatasetEvaluator:
    """Segmentation metrics by `TEST.EVALUATOR`, and box AP where the model has, or is, a detector.

    All processes must call it.

    Args:
        cfg: a complete config.
        dataset: images without a mask are left out, and images with a broken one if boxes are evaluated. Detectron2's
            evaluator needs a mask for every image.
        output_dir: for files of the evaluators.

    Raises:
        InputError: an invalid value below TEST, an evaluator that does not go with the classes, or an image without a
            mask that cannot be left out.
    """
    check_section(cfg, "TEST")
    if cfg.MODEL.DETECTOR.MODE == "alone":
        return build_box_evaluator(dataset, output_dir)
    if cfg.TEST.EVALUATOR != "confusion":
        _refuse_windows(cfg.TEST.EVALUATOR, dataset)
    if cfg.TEST.EVALUATOR == "submission":
        return SubmissionWriter(dataset, output_dir)
    evaluators: list[DatasetEvaluator] = [
        SemSegConfusionEvaluator(dataset, evaluated_crop(cfg), cfg.TEST.INFERENCE.JUDGE_PADDING, output_dir)
        if cfg.TEST.EVALUATOR == "confusion"
        else build_detectron2_evaluator(dataset, output_dir)
    ]
    if cfg.MODEL.DETECTOR.MODE == "shared":
        evaluators.append(build_box_evaluator(dataset, output_dir))
    return DatasetEvaluators(evaluators)


def _refuse_windows(evaluator: str, dataset: EvalDataset) -> None:
    for record in dataset.records:
        if "window" in record:
            raise InputError(
                f"TEST.EVALUATOR: {evaluator} takes whole images, but {record['file_name']} is read by windows; take "
                "confusion, or write its labels with `wpl predict`"
            )


def build_detectron2_evaluator(dataset: EvalDataset, output_dir: str | Path) -> SemSegEvaluator:
    """Detectron2's own evaluator, reading masks as this project does (its own reader fails under numpy 2).

    Args:
        dataset: registered as `wpl_d2.data.register` does.
        output_dir: for its predictions and results.

    Raises:
        InputError: an image has no mask.
    """
    require_masks(dataset.records, dataset.name)
    load = partial(_load_mask, dataset.metadata.get("mask_ignore", IGNORE), dataset.metadata.get("exif", APPLY))
    return SemSegEvaluator(dataset.name, output_dir=str(output_dir), sem_seg_loading_fn=load)


def _load_mask(ignore: int, exif: str, path: str, dtype: type = int) -> NDArray[Any]:
    return read_mask(path, ignore, exif).astype(np.dtype(dtype))
