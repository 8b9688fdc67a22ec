"""What a model is worth: segmentation, detection and pseudo-labels."""

from .build import build_evaluator
from .confusion import ConfusionMatrix, SemSegConfusionEvaluator, sem_seg_metrics, sem_seg_table
from .detection import build_box_evaluator
from .pseudo_labels import PseudoLabelEvaluator, evaluate_pseudo_labels

__all__ = [
    "ConfusionMatrix",
    "PseudoLabelEvaluator",
    "SemSegConfusionEvaluator",
    "build_box_evaluator",
    "build_evaluator",
    "evaluate_pseudo_labels",
    "sem_seg_metrics",
    "sem_seg_table",
]
