"""Quality of pseudo-labels, and of the scores that weigh them, on images with masks.

Training never calls this; an evaluation does if TEST.PSEUDO_LABELS names a data set.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import inference_context
from detectron2.utils.comm import is_main_process
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

from ..data import EvalDataset, build_labeled_loader
from ..data.detection_cache import load_detection_cache
from ..data.mappers import read_labels
from ..frameworks import Framework
from ..frameworks.pseudo_labels import build_refinement, make_pseudo_labels
from ..inference.pseudo_labeling import whole_image_evidence
from ..modeling import UnifiedSegDet
from ..structures import IGNORE, ClassBoxes, PseudoLabels, among_classes, class_boxes
from ..utils.comm import sum_over_ranks
from ..utils.errors import InputError
from ..weighting import PixelWeigher, Score, reliable_mask
from ..weighting.scores import comparable_scores
from .box_agreement import OBJECTS, Agreement, BoxAgreement, agreement_tables
from .statistics import BINS, auroc, calibration_results, count_by_class, histograms, percent, spread_confidence

_LOGGER = logging.getLogger(__name__)

GROUPS = ("pixel", "confident", "reliable", "outside")
"""All labeled pixels; confident ones; reliable ones (RPPI); confident ones of an object class outside all its boxes."""

_WEIGHT_UNITS = 2**24
"""Units of a weight of 1: float32 has no finer ones between 0.5 and 1."""
SCOPES = ("pixel", "confident", "sure")
"""The pixels on which scores are compared: two of the groups, and pixels with a confidence of at least RPPI.CONF, which
are comparable between trainings with different thresholds."""


class PseudoLabelEvaluator:
    """Accuracy of groups of pseudo-labels, and AUROC of scores for telling right from wrong ones.

    Everything is counted on the device, in constant memory.
    """

    def __init__(
        self,
        classes: Sequence[str],
        objects: Sequence[int],
        threshold: float,
        scores: Sequence[str] = (),
        sure: float = 0.95,
    ) -> None:
        """Start from zero.

        Args:
            classes: names of all semantic classes.
            objects: ids of the detector's classes.
            threshold: least confidence of a confident pixel.
            scores: names of the scores that `score_batch` gets; the same on all processes.
            sure: least confidence of a pixel in the scope "sure".
        """
        self.classes = list(classes)
        self._scores = ("confidence", *scores)
        self.threshold = threshold
        self.sure = sure
        self._objects = tuple(objects)
        self._parts = _parts(self.classes, objects)
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        counts = len(self.classes)
        self._groups = torch.zeros(len(GROUPS), counts, 2, dtype=torch.int64)
        self._weights = torch.zeros(counts, 2, dtype=torch.int64)
        # All of them from the start: a process without images must join every sum.
        empty = torch.zeros(len(SCOPES), counts, 2, BINS, dtype=torch.int64)
        self._histograms = dict.fromkeys(self._scores, empty)

    @torch.no_grad()
    def score_batch(
        self, pseudo: PseudoLabels, scores: Mapping[str, Tensor], target: Tensor, boxes: list[ClassBoxes] | None
    ) -> None:
        """Count the pixels of B images.

        Args:
            pseudo: the labels, with `reliable` and `weight` filled in.
            scores: (B, H, W) float in [0, 1] by name, higher for more reliable labels; "confidence" is always added.
            target: (B, H, W) integer true classes, `IGNORE` where there is none.
            boxes: of each image; None if there is no detector.
        """
        judged = pseudo.valid & (target != IGNORE) & (pseudo.labels != IGNORE)
        right = pseudo.labels == target
        confident = judged & (pseudo.confidence >= self.threshold)
        groups = [judged, confident, judged & pseudo.reliable, self._outside(pseudo, boxes) & confident]
        counts = torch.stack([self._by_class(pseudo.labels, right, group) for group in groups])
        self._groups = self._groups.to(counts.device) + counts
        # Whole numbers, so that the sum does not depend on who has counted which images.
        weights = self._by_class(pseudo.labels, right, confident, (pseudo.weight.double() * _WEIGHT_UNITS).round())
        self._weights = self._weights.to(weights.device) + weights.long()
        kind = pseudo.labels * 2 + right
        scopes = (judged, confident, judged & (pseudo.confidence >= self.sure))
        for name, score in {"confidence": spread_confidence(pseudo.confidence), **scores}.items():
            new = torch.stack([histograms(score, kind, mask, 2 * len(self.classes)) for mask in scopes])
            self._histograms[name] = self._histograms[name].to(new.device) + new.view(len(SCOPES), -1, 2, BINS)

    def state(self) -> dict[str, Any]:
        """What was counted, as plain containers of tensors."""
        histograms = {name: counts.cpu() for name, counts in self._histograms.items()}
        return {"groups": self._groups.cpu(), "weights": self._weights.cpu(), "histograms": histograms}

    def add_state(self, state: Mapping[str, Any]) -> None:
        """Add what another evaluator of the same classes and scores has counted, as of `state`."""
        self._groups = self._groups.cpu() + state["groups"]
        self._weights = self._weights.cpu() + state["weights"]
        for name, counts in state["histograms"].items():
            self._histograms[name] = self._histograms[name].cpu() + counts

    def evaluate(self) -> dict[str, float]:
        """The results over all processes' images on the main process, empty on the others.

        Returns:
            In percent `accuracy-GROUP` and `coverage-GROUP` (its part of the labeled pixels) for each of GROUPS and for
            `weighted`, the confident pixels, counted by their weights; in [0, 1] `auroc-SCORE-SCOPE`; and the
            `calibration_results` of the confidence. All of them again with `-CLASS` for the pixels labeled as that
            class, and with `-all objects` for those labeled as an object (without objects: as any class but the first);
            calibration with the latter only. NaN where no pixels are left.
        """
        groups, weights = sum_over_ranks(self._groups), sum_over_ranks(self._weights)
        summed = {name: sum_over_ranks(counts) for name, counts in sorted(self._histograms.items())}
        if groups is None or weights is None:
            return {}
        results = _group_results(groups, weights / _WEIGHT_UNITS, self._parts)
        for name, counts in summed.items():
            assert counts is not None  # the main process gets all sums
            for scope, by_class in zip(SCOPES, counts, strict=True):
                for part, ids in self._parts.items():
                    results[f"auroc-{name}-{scope}{part}"] = auroc(by_class[ids].sum(axis=0))
            if name == "confidence":
                everything = counts[SCOPES.index("pixel")]
                for part in ("", f"-{OBJECTS}"):
                    results |= calibration_results(everything[self._parts[part]].sum(axis=0), part)
        _LOGGER.info("pseudo-labels, %%:\n%s", pseudo_label_table(results, self.classes))
        return results

    def _outside(self, pseudo: PseudoLabels, boxes: list[ClassBoxes] | None) -> Tensor:
        if boxes is None:
            return torch.zeros_like(pseudo.valid)
        inside = reliable_mask(pseudo.labels, pseudo.confidence, boxes, 0.0)
        return ~inside & among_classes(pseudo.labels, self._objects)

    def _by_class(self, labels: Tensor, right: Tensor, mask: Tensor, weight: Tensor | None = None) -> Tensor:
        return count_by_class(labels, right, mask, len(self.classes), weight)


def evaluate_pseudo_labels(
    cfg: Any,
    model: UnifiedSegDet,
    weigher: PixelWeigher | None,
    dataset: EvalDataset,
) -> dict[str, float]:
    """As `judge_pseudo_labels`, with the results as of `flat_results`."""
    return flat_results(*judge_pseudo_labels(cfg, model, weigher, dataset))


def flat_results(results: Mapping[str, float], agreement: Agreement | None) -> dict[str, float]:
    """The results of `judge_pseudo_labels` in one flat dict, for a training's metrics.

    Returns:
        see `PseudoLabelEvaluator.evaluate`; with a detector also `NAME@SCORE`, for all objects together, for the
        fields NAME of `AgreementRow`.
    """
    flat = dict(results)
    for score, rows in (agreement or {}).items():
        flat |= {f"{name}@{score:g}": float(value) for name, value in asdict(rows[OBJECTS]).items()}
    return flat


def judge_pseudo_labels(
    cfg: Any,
    model: UnifiedSegDet,
    weigher: PixelWeigher | None,
    dataset: EvalDataset,
) -> tuple[dict[str, float], Agreement | None]:
    """Judge the labels that a model gives to the whole images of a data set. All processes must call it.

    Args:
        cfg: a complete config; FRAMEWORK.THRESHOLD makes a pixel confident, RPPI.CONF and RPPI.BOX_SCORE
            reliable; TEST.BOX_SCORES and TEST.BOX_IOU are for the boxes.
        model: the pseudo-labeler.
        weigher: with the memory banks of the training; without it there are no weights and no scores to judge. Those
            that need a forward of their own are judged if it weighs by one of them.
        dataset: images that cannot be read or judged are left out.

    Returns:
        see `PseudoLabelEvaluator.evaluate` and, with a detector or cached boxes, `BoxAgreement.evaluate`.

    Raises:
        InputError: the model labels no pixels, the cached detections do not fit, or an image cannot be read or has no
            mask and the data set is not lenient.
    """
    judge = PseudoLabelJudge(cfg, model, weigher, dataset)
    judge.judge(dataset)
    return judge.evaluate()


class PseudoLabelJudge:
    """Judges the pseudo-labels of a model, and its boxes; args and errors as of `judge_pseudo_labels`."""

    def __init__(self, cfg: Any, model: UnifiedSegDet, weigher: PixelWeigher | None, dataset: EvalDataset) -> None:
        """Start from zero; the images of `dataset` need not be those that are judged."""
        if not isinstance(model, UnifiedSegDet):
            raise InputError("TEST.PSEUDO_LABELS: a detector alone labels no pixels; leave it empty")
        self._cfg, self._model, self._weigher = cfg, model, weigher
        self._cache = load_detection_cache(cfg, dataset.classes, dataset.records_with_masks)
        self._detects = self._cache is not None or model.has_detector
        self._refinement = build_refinement(cfg)
        names, objects = dataset.classes, dataset.object_ids
        self._scores = {} if weigher is None else _judged_scores(weigher, self._detects, model.device)
        self._evaluator = PseudoLabelEvaluator(
            names, objects, cfg.FRAMEWORK.THRESHOLD, tuple(self._scores), cfg.RPPI.CONF
        )
        box_scores = [*cfg.TEST.BOX_SCORES, cfg.RPPI.BOX_SCORE]
        self._in_boxes = BoxAgreement(names, objects, box_scores, cfg.RPPI.CONF, cfg.TEST.BOX_IOU)

    def reset(self) -> None:
        """Forget all images."""
        self._evaluator.reset()
        self._in_boxes.reset()

    def state(self) -> dict[str, Any]:
        """What was counted, as plain containers of tensors."""
        return {"pixels": self._evaluator.state(), "boxes": self._in_boxes.state()}

    def add_state(self, state: Mapping[str, Any]) -> None:
        """Add what another judge of the same model has counted, as of `state`."""
        self._evaluator.add_state(state["pixels"])
        self._in_boxes.add_state(state["boxes"])

    def evaluate(self) -> tuple[dict[str, float], Agreement | None]:
        """The results, as of `judge_pseudo_labels`."""
        agreement = self._in_boxes.evaluate() if self._detects else None
        if agreement is not None:
            _LOGGER.info("boxes and pixels, %%:\n%s", agreement_tables(agreement, self._cfg.RPPI.BOX_SCORE))
        return self._evaluator.evaluate(), agreement

    @torch.no_grad()
    def judge(self, dataset: EvalDataset) -> None:
        """Count the images of a data set."""
        true_boxes = dataset.true_boxes if self._detects else {}
        weigher = nullcontext() if self._weigher is None else inference_context(self._weigher)
        # The weigher, too: what is judged is no step that its running figures should be of.
        with inference_context(self._model), weigher:
            loader = dataset.loader(self._cache)
            for (item,) in tqdm(loader, "pseudo-labels", unit="image", mininterval=5, disable=not is_main_process()):
                try:
                    labels = read_labels(item, item["image"].shape[1:], len(dataset.classes))
                except InputError as error:
                    dataset.leave_out(item, error)
                else:
                    self._judge_image(item, torch.tensor(labels, device=self._model.device)[None], true_boxes)

    def _judge_image(self, item: Mapping[str, Any], target: Tensor, true_boxes: Mapping[str, ClassBoxes]) -> None:
        model, weigher, rppi = self._model, self._weigher, self._cfg.RPPI
        evidence = whole_image_evidence(model, item)
        found = None if evidence.detections is None else evidence.detections[0]
        pseudo = make_pseudo_labels(evidence, self._refinement, weigher)
        boxes = None if found is None else class_boxes([found], rppi.BOX_SCORE)
        if boxes is not None:  # whether or not RPPI is on
            reliable = reliable_mask(pseudo.labels, pseudo.confidence, boxes, rppi.CONF)
            pseudo = pseudo.replace(reliable=reliable)
        evidence = replace(evidence, pseudo=pseudo)
        memory = None if weigher is None else weigher.memory
        scores = {name: score(evidence, memory) for name, score in self._scores.items()}
        self._evaluator.score_batch(pseudo, scores, target, boxes)
        if found is not None:
            self._in_boxes.score_image(pseudo, found, target, true_boxes[item["image_id"]])


def _judged_scores(weigher: PixelWeigher, boxes: bool, device: torch.device) -> dict[str, Score]:
    """All scores that can be computed, by name, but for "confidence", which is the evaluator's own.

    Of those that learn, the weigher's own.
    """
    lacks = {"views"} - weigher.score_needs
    scores = comparable_scores(weigher.options, lacks if boxes else lacks | {"boxes"})
    scores |= {name: score for name, score in weigher.scores.items() if score.learns}
    del scores["confidence"]
    return {name: score.to(device) for name, score in scores.items()}


def _parts(classes: Sequence[str], objects: Sequence[int]) -> dict[str, list[int]]:
    """The parts of the labels with results of their own: suffix of the names to class ids."""
    foreground = list(objects) or list(range(1, len(classes)))
    every = {"": list(range(len(classes))), f"-{OBJECTS}": foreground}
    return every | {f"-{name}": [index] for index, name in enumerate(classes)}


def _group_results(
    groups: NDArray[np.int64], weights: NDArray[np.float64], parts: Mapping[str, list[int]]
) -> dict[str, float]:
    """Percent by name from (G, C, 2) counts and (C, 2) weights of wrong and right pixels."""
    results = {}
    everything = groups[GROUPS.index("pixel")]
    for group, by_class in zip((*GROUPS, "weighted"), (*groups, weights), strict=True):
        for part, ids in parts.items():
            counts = by_class[ids].sum(axis=0)
            results[f"accuracy-{group}{part}"] = percent(counts[1], counts.sum())
            results[f"coverage-{group}{part}"] = percent(counts.sum(), everything[ids].sum())
    return results


def pseudo_label_table(results: Mapping[str, float], classes: Sequence[str]) -> str:
    """The results of `PseudoLabelEvaluator` as text: accuracy (coverage) of the groups, AUROC, AUROC by class.

    Args:
        results: percent, and AUROC in [0, 1], by name.
        classes: in the order of the rows.
    """
    rows = [["all", *(_cell(results, group) for group in GROUPS)]]
    rows += [[name, *(_cell(results, f"{group}-{name}") for group in GROUPS)] for name in (OBJECTS, *classes)]
    scores = dict.fromkeys(name.split("-")[1] for name in results if name.startswith("auroc-"))
    areas = [[name, *(_area(results, f"{name}-{scope}") for scope in SCOPES)] for name in scores]
    first = tabulate(rows, headers=["accuracy (coverage)", *GROUPS], tablefmt="pipe")
    second = tabulate(areas, headers=["AUROC", *SCOPES], tablefmt="pipe", disable_numparse=True)
    labels = (OBJECTS, *classes)
    by_class = [[label, *(_area(results, f"{name}-confident-{label}") for name in scores)] for label in labels]
    third = tabulate(by_class, headers=["AUROC, confident", *scores], tablefmt="pipe", disable_numparse=True)
    return f"{first}\n\nconfident pixels by their weight: {results['accuracy-weighted']:.2f}\n\n{second}\n\n{third}"


def _cell(results: Mapping[str, float], name: str) -> str:
    accuracy, coverage = results[f"accuracy-{name}"], results[f"coverage-{name}"]
    return "-" if np.isnan(accuracy) else f"{accuracy:.2f} ({coverage:.1f})"


def _area(results: Mapping[str, float], name: str) -> str:
    area = results[f"auroc-{name}"]
    return "-" if np.isnan(area) else f"{area:.3f}"


@torch.no_grad()
def filled_weigher(cfg: Any, framework: Framework) -> PixelWeigher:
    """A weigher whose bank is filled with the pseudo-labeler's embeddings of labeled pixels.

    Args:
        cfg: a complete config; WEIGHTING.ENABLED does not matter.
        framework: a trained one.
    """
    weigher = PixelWeigher.from_config(cfg).to(framework.device)
    views = -(-cfg.WEIGHTING.BANK_SIZE // cfg.WEIGHTING.PUSH_PER_IMAGE)
    for items in islice(build_labeled_loader(cfg), -(-views // cfg.SOLVER.IMS_PER_BATCH)):
        output = framework.teacher_forward(items).output
        weigher.stage_labeled(output.embedding, output.logits, framework.stack(items, "sem_seg"))
        weigher.after_step()
    return weigher
