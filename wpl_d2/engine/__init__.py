"""Training: the trainer, its hooks and checkpoints, and the start of a run."""

from .launch import launch
from .preflight import check_run
from .report import evaluate_only, load_framework, report
from .runs import Spread, is_finished, last_value, paired_differences, read_json, read_metrics
from .setup import save_run_info, setup
from .solver import build_optimizer
from .trainer import Trainer

__all__ = [
    "Spread",
    "Trainer",
    "build_optimizer",
    "check_run",
    "evaluate_only",
    "is_finished",
    "last_value",
    "launch",
    "load_framework",
    "paired_differences",
    "read_json",
    "read_metrics",
    "report",
    "save_run_info",
    "setup",
]
