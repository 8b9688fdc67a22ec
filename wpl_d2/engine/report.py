"""Evaluation without training, and what a run says at its end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.utils import comm

from ..checkpoint.checkpointer import FrameworkCheckpointer
from ..evaluation.evaluator import evaluate
from ..frameworks import Framework, build_framework
from ..utils.errors import InputError
from ..visualization import optional_picture, render_preview

logger = logging.getLogger(__name__)


def evaluate_only(cfg: Any, resume: bool) -> dict[str, Any]:
    """Evaluate a checkpoint; see `load_framework`."""
    return evaluate(cfg, load_framework(cfg, resume))


def load_framework(cfg: Any, resume: bool = False) -> Framework:
    """A trained framework out of a checkpoint: the newest of the output folder with `resume`, else `MODEL.WEIGHTS`.

    Args:
        cfg: the config of the training that wrote the checkpoint.
        resume: the command line's `--resume`.

    Raises:
        InputError: there is no such checkpoint, or it is of another model.
    """
    return load_trained(build_framework(cfg), cfg, resume).eval()


def load_trained(framework: Framework, cfg: Any, resume: bool) -> Framework:
    """As `load_framework`, into a framework that `cfg` was built into already."""
    checkpointer = FrameworkCheckpointer(framework, cfg)
    if resume:
        if not checkpointer.resume():
            raise InputError(f"OUTPUT_DIR: no checkpoint in {cfg.OUTPUT_DIR}; train first, or give MODEL.WEIGHTS")
    elif Path(cfg.MODEL.WEIGHTS).suffix == ".pth" and Path(cfg.MODEL.WEIGHTS).is_file():
        checkpointer.load(cfg.MODEL.WEIGHTS)
    else:
        raise InputError(
            f"MODEL.WEIGHTS: {cfg.MODEL.WEIGHTS or 'empty'} is no checkpoint of a training; "
            "give its model_final.pth, or --resume for the newest of OUTPUT_DIR"
        )
    return framework


def report(cfg: Any, results: Mapping[str, Any], framework: Framework | None = None) -> None:
    """Say on the main process what came out and where it is.

    Args:
        cfg: the run's config.
        results: of `evaluate`.
        framework: after a training, to draw the preview picture with.

    Raises:
        SystemExit: with status 1, on all processes, if images were left out of an evaluation.
    """
    if comm.is_main_process():
        _say(cfg, results, framework)
    if "left_out" in results:
        comm.synchronize()  # the launcher ends all once one has left, and the main one still writes
        raise SystemExit(1)


def _say(cfg: Any, results: Mapping[str, Any], framework: Framework | None) -> None:
    output = Path(cfg.OUTPUT_DIR)
    left = {"log": output / "log.txt"}
    if framework is not None:
        left |= {"checkpoint": output / "model_final.pth", "best checkpoint": output / "model_best.pth"}
        left |= {"metrics": output / "metrics.json"}
        if "sem_seg" in results:
            with optional_picture("the preview"):
                render_preview(cfg, framework, output / "preview.png")
                left["preview"] = output / "preview.png"
    lines = [f"{name}: {path}" for name, path in left.items() if path.exists()]
    if "sem_seg" in results:
        lines.insert(0, f"mIoU on {cfg.DATASETS.TEST[0]}: {results['sem_seg']['mIoU']:.2f}")
    elif "bbox" in results:
        lines.insert(0, f"box AP on {cfg.DATASETS.TEST[0]}: {results['bbox']['AP']:.2f}")
    if "left_out" in results:
        lines.append("images were left out of an evaluation, see the warnings: the exit status is 1")
    logger.info("Done.\n  %s", "\n  ".join(lines))
