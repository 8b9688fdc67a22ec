"""Evaluation of segmentation, detection and pseudo-labels."""

from .detection import build_box_evaluator
from .evaluator import build_evaluator
from .image_counts import ImageCounts
from .parts import PartsEvaluation
from .pseudo_labels import PseudoLabelEvaluator, evaluate_pseudo_labels, filled_weigher, judge_pseudo_labels
from .sem_seg import ConfusionMatrix, SemSegConfusionEvaluator, sem_seg_metrics, sem_seg_table
from .submission import SubmissionWriter

__all__ = [
    "ConfusionMatrix",
    "ImageCounts",
    "PartsEvaluation",
    "PseudoLabelEvaluator",
    "SemSegConfusionEvaluator",
    "SubmissionWriter",
    "build_box_evaluator",
    "build_evaluator",
    "evaluate_pseudo_labels",
    "filled_weigher",
    "judge_pseudo_labels",
    "sem_seg_metrics",
    "sem_seg_table",
]
