"""The checks of a run, made once, before its processes start."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode

from ..checkpoint import FrameworkCheckpointer, load_initial_weights
from ..checkpoint.metadata import restore_cfg
from ..checkpoint.run_folder import has_previous_run
from ..config.config import leaf_keys
from ..config.layers import value_of
from ..config.validation import check_config, check_device
from ..data import EvalDataset, check_training_data, register_part
from ..data.datasets.setup import check_registered
from ..data.detection_cache import load_detection_cache
from ..data.loader import images_per_process, labeled_dataset, require_masks, unlabeled_dataset
from ..evaluation.submission import SubmissionWriter
from ..frameworks import Framework, build_framework
from ..frameworks.compilation import check_compiler
from ..utils.errors import InputError
from ..utils.files import make_output_folder, read_text
from .launch import count_processes
from .self_training import make_plan
from .setup import read_cfg
from .solver import build_optimizer
from .trainer import build_training_framework
from .writers import check_loggers


def check_run(args: argparse.Namespace, judged: Sequence[str] = (), images: int | None = None) -> None:
    """Check a training or an evaluation. Data and weights that it would make or download are made and downloaded.

    The model is built without memory for its weights, which takes next to no time.

    Args:
        args: of Detectron2's `default_argument_parser`.
        judged: names of further lists, on which pseudo-labels will be judged.
        images: size of the part of each of them that will be (see `register_part`); None: all of it.

    Raises:
        InputError: config, data or weights are wrong, or the output folder cannot be written.
    """
    cfg, _ = read_cfg(args)
    check_device("MODEL.DEVICE", cfg.MODEL.DEVICE)
    check_config(cfg)
    if args.eval_only:
        _check_evaluation(cfg, args, judged, images)
    else:
        _check_training(cfg, args)
    make_output_folder("OUTPUT_DIR", Path(cfg.OUTPUT_DIR))


_FREE = {
    *("OUTPUT_DIR", "DATALOADER.NUM_WORKERS", "DATALOADER.CACHE", "DATALOADER.CACHE_GB", "LOGGERS"),
    *("SOLVER.EARLY_STOPPING.PATIENCE", "SOLVER.CHECKPOINT_BUCKET", "WEIGHTING.RECORD_PERIOD"),
    "SOLVER.GRAD_ACCUMULATION",  # a second try after too little memory has set it
}
"""Keys that a run may go on with another value of."""
_NAMED = 5


def check_continued_run(args: argparse.Namespace) -> None:
    """`check_run` for a training that goes on if its folder has a run, which must have the same config.

    Args:
        args: as for `check_run`.

    Raises:
        InputError: as for `check_run`, or keys differ; the message names them.
    """
    plan = make_plan(read_cfg(args)[0])
    for cfg in (*(phase.cfg for phase in plan.earlier), plan.last):
        _check_same_config(cfg)
    check_run(args)


def _check_same_config(cfg: CfgNode) -> None:
    folder = Path(cfg.OUTPUT_DIR)
    file = folder / "config.yaml"
    if not has_previous_run(folder) or not file.is_file():
        return
    before, now = restore_cfg(read_text(file), str(file)), restore_cfg(cfg.dump())  # both as YAML has them
    # A seed below 0 stands for any, and config.yaml has the one that was drawn.
    free = _FREE | ({"SEED"} if cfg.SEED < 0 else set())
    keys = [key for key in leaf_keys(now) if key not in free and value_of(now, key) != value_of(before, key)]
    if keys:
        named = [f"{key} {value_of(now, key)}, there {value_of(before, key)}" for key in keys[:_NAMED]]
        more = [f"{len(keys) - _NAMED} more"] if keys[_NAMED:] else []
        raise InputError(
            f"OUTPUT_DIR: {folder} holds a run with another config ({'; '.join(named + more)}); choose another folder, "
            "or add --new to begin anew, or --resume to go on with the new values"
        )


def _check_training(cfg: CfgNode, args: argparse.Namespace) -> None:
    processes = count_processes(args)
    make_plan(cfg)
    images_per_process(cfg, "IMS_PER_BATCH", processes)
    if cfg.DATASETS.UNLABELED:
        images_per_process(cfg, "UNLABELED_IMS_PER_BATCH", processes)
    framework = _without_memory(build_training_framework, cfg)
    build_optimizer(cfg, *framework.students)
    check_loggers(cfg)
    if cfg.MODEL.COMPILE:
        check_compiler(cfg.MODEL.DEVICE)
    if not (args.resume and any(Path(cfg.OUTPUT_DIR).glob("model_*.pth"))):
        with warnings.catch_warnings(action="ignore"):  # one for each tensor that meta has no values for
            load_initial_weights(framework.student, cfg)
    if cfg.TEST.EVAL_PERIOD > 0:
        _check_submission(cfg)
    check_training_data(cfg)
    labeled_dataset(cfg)
    if cfg.DATASETS.UNLABELED:
        unlabeled_dataset(cfg)


def _check_evaluation(cfg: CfgNode, args: argparse.Namespace, judged: Sequence[str], images: int | None) -> None:
    for name in judged:
        check_registered("--dataset", name)
    if images is not None:
        judged = [register_part(name, images) for name in judged]
    tested = {"DATASETS.TEST": cfg.DATASETS.TEST, "TEST.PSEUDO_LABELS": cfg.TEST.PSEUDO_LABELS, "--dataset": judged}
    if not any(tested.values()):
        raise InputError("DATASETS.TEST: names no list; name one to evaluate on")
    with warnings.catch_warnings(action="ignore"):
        framework = _without_memory(build_framework, cfg)
        FrameworkCheckpointer(framework, cfg).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    _check_submission(cfg)
    for key, names in tested.items():
        for name in names:
            dataset = EvalDataset(name=name, key=key)
            if key != "DATASETS.TEST" or cfg.TEST.EVALUATOR != "submission":
                require_masks(dataset.records, name)
            if key != "DATASETS.TEST":
                load_detection_cache(cfg, dataset.classes, dataset.records)


def _check_submission(cfg: CfgNode) -> None:
    if cfg.TEST.EVALUATOR == "submission":
        for name in cfg.DATASETS.TEST:
            SubmissionWriter(EvalDataset(name=name), cfg.OUTPUT_DIR)


def _without_memory(build: Callable[[CfgNode], Framework], cfg: CfgNode) -> Framework:
    """What `build` makes of a config, on PyTorch's meta device: tensors that have shapes and no values."""
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build(cfg)
