"""Training: launching processes, the start of a run, the trainer and its hooks."""

from .launch import launch
from .preflight import check_run, check_same_config
from .runs import Spread, find_runs, is_finished, last_value, paired_differences, read_json, read_metrics
from .setup import report_results, save_run_info, setup
from .solver import build_optimizer
from .trainer import Trainer

__all__ = [
    "Spread",
    "Trainer",
    "build_optimizer",
    "check_run",
    "check_same_config",
    "find_runs",
    "is_finished",
    "last_value",
    "launch",
    "paired_differences",
    "read_json",
    "read_metrics",
    "report_results",
    "save_run_info",
    "setup",
]
