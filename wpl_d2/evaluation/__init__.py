"""What a model is worth: segmentation, detection and pseudo-labels."""

from .box_caching import cache_boxes
from .build import build_evaluator, check_evaluator
from .confusion import ConfusionMatrix, SemSegConfusionEvaluator, sem_seg_metrics, sem_seg_table
from .detection import build_box_evaluator
from .filled_weigher import filled_weigher
from .inference import Inference, build_inference, build_predict
from .label_files import LabelFiles
from .pseudo_labels import PseudoLabelEvaluator, evaluate_pseudo_labels, judge_pseudo_labels
from .windows import Predict

__all__ = [
    "ConfusionMatrix",
    "Inference",
    "LabelFiles",
    "Predict",
    "PseudoLabelEvaluator",
    "SemSegConfusionEvaluator",
    "build_box_evaluator",
    "build_evaluator",
    "build_inference",
    "build_predict",
    "cache_boxes",
    "check_evaluator",
    "evaluate_pseudo_labels",
    "filled_weigher",
    "judge_pseudo_labels",
    "sem_seg_metrics",
    "sem_seg_table",
]
