"""Semi-supervised methods, one file each, on one protocol."""

from .base import FRAMEWORK_REGISTRY, Framework, build_framework
from .mean_teacher import MeanTeacher
from .supervised import Supervised

__all__ = ["FRAMEWORK_REGISTRY", "Framework", "MeanTeacher", "Supervised", "build_framework"]
