"""Training: launching processes, the start of a run, the trainer and its hooks."""

from .launch import launch
from .memory import launch_within_memory
from .preflight import check_continued_run, check_run
from .runs import Spread, find_runs, is_finished, last_value, paired_differences, read_json, read_metrics
from .setup import report_results, save_run_info, setup
from .solver import build_optimizer
from .trainer import Trainer

__all__ = [
    "Spread",
    "Trainer",
    "build_optimizer",
    "check_continued_run",
    "check_run",
    "find_runs",
    "is_finished",
    "last_value",
    "launch",
    "launch_within_memory",
    "paired_differences",
    "read_json",
    "read_metrics",
    "report_results",
    "save_run_info",
    "setup",
]
