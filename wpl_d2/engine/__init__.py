"""Training: the trainer, its hooks and checkpoints, and the start of a run."""

from .check import check_run
from .checkpoint import FrameworkCheckpointer, load_model
from .launch import launch
from .report import evaluate_only, load_framework, report
from .setup import record_run, setup
from .solver import build_optimizer
from .trainer import Trainer

__all__ = [
    "FrameworkCheckpointer",
    "Trainer",
    "build_optimizer",
    "check_run",
    "evaluate_only",
    "launch",
    "load_framework",
    "load_model",
    "record_run",
    "report",
    "setup",
]
