"""Training: the trainer, its hooks and checkpoints, and the start of a run."""

from .launch import launch
from .preflight import check_run
from .report import evaluate_only, load_framework, report
from .runs import Spread, came_to_its_end, last_value, paired_differences, read_json, read_metrics
from .setup import record_run, setup
from .solver import build_optimizer
from .trainer import Trainer

__all__ = [
    "Spread",
    "Trainer",
    "build_optimizer",
    "came_to_its_end",
    "check_run",
    "evaluate_only",
    "last_value",
    "launch",
    "load_framework",
    "paired_differences",
    "read_json",
    "read_metrics",
    "record_run",
    "report",
    "setup",
]
