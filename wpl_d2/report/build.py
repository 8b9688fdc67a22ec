"""Making a report of runs: of one at the end of its training, or of several when asked."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm

from .. import __version__
from ..checkpoint import load_framework
from ..checkpoint.metadata import restore_cfg
from ..data import setup_datasets
from ..evaluation.evaluator import evaluate
from ..frameworks import Framework
from ..utils.errors import InputError
from ..utils.files import write_text
from ..visualization import optional_picture
from .comparison import compare_runs
from .evidence import gather_evidence
from .page import render_page
from .run import read_run
from .summary import summarize_run
from .verdict import judge_run

NAME = "report.html"
"""The page; its numbers are in a .json of the same name beside it."""


def report_training(cfg: Any, framework: Framework) -> None:
    """Make the report of a training that has just ended, in its folder, on the main process.

    Whatever goes wrong is a warning: no training ends by its report.

    Args:
        cfg: the run's config; its data sets are registered.
        framework: as the training left it.
    """
    if not comm.is_main_process():
        return
    folder = Path(cfg.OUTPUT_DIR)
    with optional_picture("the report's pictures and counts of labels"):
        gather_evidence(cfg, framework)
    with optional_picture("the report"):
        write_report([folder], folder / NAME)


def write_report(folders: Sequence[Path], page: Path) -> dict[str, Any]:
    """Write a report of runs, as HTML and as JSON.

    Args:
        folders: of the runs.
        page: the HTML file; a .json of the same name is written beside it.

    Returns:
        what the JSON holds.

    Raises:
        InputError: a folder is none of a run, a file in it is damaged, or the report cannot be written.
    """
    report = make_report(folders)
    write_text(page.with_suffix(".json"), json.dumps(report, indent=1))
    write_text(page, render_page(report))
    return report


def make_report(folders: Sequence[Path]) -> dict[str, Any]:
    """The numbers and words of a report of runs.

    Raises:
        InputError: a folder is none of a run, or a file in it is damaged.
    """
    runs = [read_run(folder) for folder in folders]
    common = default_page(folders).parent
    summaries = []
    for run in runs:
        summary = _without_nan(summarize_run(run))
        if len(runs) > 1:
            summary["name"] = str(run.folder.absolute().relative_to(common))
        summaries.append({**summary, "verdict": judge_run(summary)})
    return {
        "folder": str(common),
        "made": f"{datetime.now():%Y-%m-%d %H:%M}",
        "version": __version__,
        "runs": summaries,
        "comparison": _without_nan(compare_runs(runs)) if len(runs) > 1 else None,
    }


def _without_nan(tree: Any) -> Any:
    """The same with None for numbers that are not finite, which JSON does not have."""
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_nan(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def default_page(folders: Sequence[Path]) -> Path:
    """Where the report of runs goes: into the run's folder, or into the one that holds them all."""
    return Path(os.path.commonpath([folder.absolute() for folder in folders])) / NAME


def lacks_evidence(folder: Path) -> bool:
    """Whether a run kept no counts by image, or no pictures.

    Raises:
        InputError: it is none, or a file in it is damaged.
    """
    run = read_run(folder)
    return run.counts is None or not run.evidence.get("examples")


def evaluate_run(folder: Path) -> None:
    """Evaluate the final model of a run on its first test set, and gather what its report lacks.

    Args:
        folder: of the run; gets `inference` and the files of `gather_evidence`.

    Raises:
        InputError: it is none of a run, or has no final model, or its data is not there.
    """
    run = read_run(folder)
    weights = folder / "model_final.pth"
    if not run.config or not weights.is_file():
        raise InputError(
            f"{folder}: lacks config.yaml or model_final.pth, so that nothing can be evaluated; finish the training"
        )
    cfg = restore_cfg(run.config, str(folder / "config.yaml"))
    cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS = str(folder), str(weights)
    cfg.DATASETS.TEST, cfg.TEST.PSEUDO_LABELS, cfg.TEST.STUDENT = tuple(cfg.DATASETS.TEST[:1]), (), False
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    setup_datasets(cfg)
    cfg.freeze()
    framework = load_framework(cfg)
    evaluate(cfg, framework)
    gather_evidence(cfg, framework)
