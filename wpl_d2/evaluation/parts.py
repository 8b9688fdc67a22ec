"""Evaluations in parts, by an engine: what is counted are whole numbers, whose sum is that of one process."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import inference_context
from tqdm import tqdm

from .. import __version__
from ..checkpoint import load_framework
from ..data import EvalDataset, setup_datasets
from ..data.file_cache import file_state
from ..frameworks import Framework
from ..inference.build import build_inference
from ..inference.engines import IMAGES, Engine, Part, PartStore, SentFile, Work, digest, do_parts
from ..utils.errors import InputError
from ..weighting import PixelWeigher
from .evaluator import Evaluator, LenientEvaluator, build_evaluator
from .pseudo_labels import Agreement, PseudoLabelJudge

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class _Job(ABC):
    """What is done with parts of a data set, as a `Job`; the result of a part is what was counted and left out.

    Attributes:
        cfg: complete.
        weights: the checkpoint.
        dataset: a name by which the workers know the data set's classes.
        lenient: see `EvalDataset`.
    """

    cfg: CfgNode
    weights: SentFile
    dataset: str
    lenient: bool

    def start(self) -> Work:
        """See `Job`."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0
        cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
        setup_datasets(cfg)
        with self.weights.unpacked() as file:
            cfg.MODEL.WEIGHTS = str(file)
            framework = load_framework(cfg)
        return partial(self._do, cfg, framework, EvalDataset(cfg, name=self.dataset, lenient=self.lenient))

    def facts(self) -> tuple[Any, ...]:
        """What the results depend on, beside the images; as of `digest`."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.SEED = 0  # drawn anew for each run; it fills the memory of a weigher alone
        cache = cfg.MODEL.DETECTOR.CACHE
        return (
            *(__version__, type(self).__name__, cfg.dump(), self.weights.digest, self.dataset),
            cache and file_state(cache),
        )

    @abstractmethod
    def _do(
        self, cfg: CfgNode, framework: Framework, dataset: EvalDataset, parts: Iterable[Records]
    ) -> Iterator[Iterator[Any]]:
        """Count the images of parts of a data set."""


@dataclass(frozen=True)
class EvaluationJob(_Job):
    """The evaluation of a model.

    Attributes:
        model: a name in `Framework.eval_models`.
    """

    model: str

    def facts(self) -> tuple[Any, ...]:
        """See `_Job`."""
        return (*super().facts(), self.model)

    def _do(
        self, cfg: CfgNode, framework: Framework, dataset: EvalDataset, parts: Iterable[Records]
    ) -> Iterator[Iterator[Any]]:
        model = build_inference(cfg, framework.eval_models()[self.model])
        with tempfile.TemporaryDirectory(prefix="wpl_d2_") as folder, inference_context(model), torch.no_grad():
            for records in parts:
                part = dataset.part(records)
                evaluator = LenientEvaluator(build_evaluator(cfg, part, folder), part)
                evaluator.reset()
                for inputs in part.loader():
                    evaluator.process(inputs, model(inputs))
                yield iter([(evaluator.state(), part.left_out)])


@dataclass(frozen=True)
class JudgingJob(_Job):
    """The judging of pseudo-labels.

    Attributes:
        weigher: with its memory; None judges no scores.
    """

    weigher: PixelWeigher | None

    def facts(self) -> tuple[Any, ...]:
        """See `_Job`."""
        return (*super().facts(), None if self.weigher is None else self.cfg.SEED)

    def _do(
        self, cfg: CfgNode, framework: Framework, dataset: EvalDataset, parts: Iterable[Records]
    ) -> Iterator[Iterator[Any]]:
        model = next(iter(framework.eval_models().values()))
        weigher = None if self.weigher is None else self.weigher.to(model.device)
        judge = PseudoLabelJudge(cfg, model, weigher, dataset)
        for records in parts:
            part = dataset.part(records)
            judge.reset()
            judge.judge(part)
            yield iter([(judge.state(), part.left_out)])


@dataclass(frozen=True)
class PartsEvaluation:
    """An evaluation by the workers of an engine, as a `Distributed`.

    Attributes:
        engine: where.
        weights: the checkpoint of the evaluated framework.
    """

    engine: Engine
    weights: SentFile

    def count(self, cfg: Any, name: str, dataset: EvalDataset, total: LenientEvaluator, folder: Path) -> None:
        """See `Distributed`."""
        if cfg.TEST.EVALUATOR != "confusion" and cfg.MODEL.DETECTOR.MODE != "alone":
            raise InputError(
                f"TEST.EVALUATOR: {cfg.TEST.EVALUATOR} counts in one process; take confusion, or no --engine"
            )
        count_parts(self.engine, EvaluationJob(cfg, self.weights, dataset.name, True, name), dataset, total, folder)

    def judge(
        self,
        cfg: Any,
        model: Any,
        weigher: PixelWeigher | None,
        dataset: EvalDataset,
        known_as: str = "",
        lenient: bool = True,
    ) -> tuple[dict[str, float], Agreement | None]:
        """See `Distributed`.

        Args:
            cfg: a complete config.
            model: the pseudo-labeler here.
            weigher: see `judge_pseudo_labels`.
            dataset: of the images.
            known_as: a list of the same data set that the workers know, if they do not know this one.
            lenient: whether images that cannot be judged are left out.
        """
        judge = PseudoLabelJudge(cfg, model, weigher, dataset)
        job = JudgingJob(cfg, self.weights, known_as or dataset.name, lenient, weigher)
        count_parts(self.engine, job, dataset, judge, Path(cfg.OUTPUT_DIR) / "inference" / dataset.name / "judged")
        return judge.evaluate()


def count_parts(
    engine: Engine, job: _Job, dataset: EvalDataset, total: Evaluator | PseudoLabelJudge, folder: str | Path
) -> None:
    """Have an engine count the images of a data set, with a progress bar.

    Args:
        engine: where.
        job: what.
        dataset: of the images; those that could not be judged are left out.
        total: all counts are added to it.
        folder: keeps what is done while the job is not.
    """
    records, facts = dataset.records, job.facts()
    items = [records[start : start + IMAGES] for start in range(0, len(records), IMAGES)]
    store = PartStore(Path(folder) / "parts")
    parts = [Part(digest(facts, item, [_states(record) for record in item]), item) for item in items]
    with tqdm(total=len(records), unit="image") as progress:
        for item, (state, left_out) in zip(items, do_parts(engine, job, parts, store), strict=True):
            total.add_state(state)
            dataset.left_out = left_out | dataset.left_out
            progress.update(len(item))
    store.clear()


def _states(record: dict[str, Any]) -> list[Any]:
    return [file_state(record[key]) for key in ("file_name", "sem_seg_file_name") if key in record]
