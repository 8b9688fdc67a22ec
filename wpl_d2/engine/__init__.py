"""Training: launching processes, the start of a run, the trainer and its hooks."""

from .launch import launch
from .memory import launch_within_memory
from .phases import Phase, Plan, train_earlier_phases
from .preflight import check_continued_run, check_run
from .prototype_record import PrototypeRecord, read_prototypes
from .runs import Spread, find_runs, is_finished, last_value, paired_differences, read_json, read_metrics
from .self_training import make_plan
from .setup import report_results, save_run_info, setup
from .solver import build_optimizer
from .trainer import Trainer

__all__ = [
    "Phase",
    "Plan",
    "PrototypeRecord",
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
    "make_plan",
    "paired_differences",
    "read_json",
    "read_metrics",
    "read_prototypes",
    "report_results",
    "save_run_info",
    "setup",
    "train_earlier_phases",
]
