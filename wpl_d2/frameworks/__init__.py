"""Semi-supervised methods, one file each, on one protocol."""

from .base import FRAMEWORK_REGISTRY, Framework, build_framework
from .detector import Detector
from .mean_teacher import MeanTeacher
from .supervised import Supervised
from .unimatch import UniMatch

__all__ = ["FRAMEWORK_REGISTRY", "Detector", "Framework", "MeanTeacher", "Supervised", "UniMatch", "build_framework"]
