"""What can be wrong with a run: found once, before its processes are started."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from detectron2.config import CfgNode

from ..data import check_training_data, register_part
from ..data.box_cache import load_box_cache
from ..data.datasets.setup import check_list
from ..data.loader import labeled_dataset, list_records, share_of_batch, unlabeled_dataset
from ..errors import InputError, check_name
from ..evaluation import build_predict, check_evaluator
from ..evaluation.label_files import LabelFiles
from ..evaluation.records import records_with_masks
from ..files import make_folder
from ..frameworks import Framework, build_framework
from ..modeling.build import check_device
from .checkpoint import load_initial_weights
from .launch import count_processes
from .report import load_trained
from .setup import read_cfg
from .solver import build_optimizer
from .trainer import precision, trained_framework


def check_run(args: argparse.Namespace, judged: Sequence[str] = (), images: int | None = None) -> None:
    """Find what is wrong with a training or evaluation. What must be made or downloaded first is made and downloaded.

    The model is built without memory for its weights, so that it costs next to nothing.

    Args:
        args: of Detectron2's `default_argument_parser`.
        judged: names of further lists, on which pseudo-labels will be judged.
        images: size of the part of each of them that will be (see `register_part`); None: all of it.

    Raises:
        InputError: anything that is wrong in config, data or weights, or the output folder cannot be written.
    """
    cfg, _ = read_cfg(args)
    check_device("MODEL.DEVICE", cfg.MODEL.DEVICE)
    check_name("INPUT.FORMAT", cfg.INPUT.FORMAT, ["RGB"])
    precision(cfg)
    check_evaluator(cfg)
    build_predict(cfg, lambda images: images)
    if args.eval_only:
        _check_evaluation(cfg, args, judged, images)
    else:
        _check_training(cfg, args)
    make_folder("OUTPUT_DIR", Path(cfg.OUTPUT_DIR))


def _check_training(cfg: CfgNode, args: argparse.Namespace) -> None:
    processes = count_processes(args)
    share_of_batch(cfg, "IMS_PER_BATCH", processes)
    if cfg.DATASETS.UNLABELED:
        share_of_batch(cfg, "UNLABELED_IMS_PER_BATCH", processes)
    framework = _without_memory(trained_framework, cfg)
    build_optimizer(cfg, framework.student)
    if not (args.resume and any(Path(cfg.OUTPUT_DIR).glob("model_*.pth"))):
        with _nothing_kept():
            load_initial_weights(framework.student, cfg)
    if cfg.TEST.EVAL_PERIOD > 0:
        _check_label_files(cfg)
    check_training_data(cfg)
    labeled_dataset(cfg)
    if cfg.DATASETS.UNLABELED:
        unlabeled_dataset(cfg)


def _check_evaluation(cfg: CfgNode, args: argparse.Namespace, judged: Sequence[str], images: int | None) -> None:
    for name in judged:
        check_list("--dataset", name)
    if images is not None:
        judged = [register_part(name, images) for name in judged]
    tested = {"DATASETS.TEST": cfg.DATASETS.TEST, "TEST.PSEUDO_LABELS": cfg.TEST.PSEUDO_LABELS, "--dataset": judged}
    if not any(tested.values()):
        raise InputError("DATASETS.TEST: names no list; name one to evaluate on")
    with _nothing_kept():
        load_trained(_without_memory(build_framework, cfg), cfg, args.resume)
    _check_label_files(cfg)
    for key, names in tested.items():
        for name in names:
            list_records(name, key)
            if key != "DATASETS.TEST" or cfg.TEST.EVALUATOR != "label_files":
                records_with_masks(name)
            if key != "DATASETS.TEST" and cfg.MODEL.DETECTOR.MODE == "cached":
                load_box_cache(cfg, name, cfg.RPPI.BOX_SCORE).give(list_records(name, key))


def _check_label_files(cfg: CfgNode) -> None:
    if cfg.TEST.EVALUATOR == "label_files":
        for name in cfg.DATASETS.TEST:
            LabelFiles(name, cfg.OUTPUT_DIR)


def _without_memory(build: Callable[[CfgNode], Framework], cfg: CfgNode) -> Framework:
    """What `build` makes of a config, with tensors that have shapes and no numbers."""
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build(cfg)


@contextmanager
def _nothing_kept() -> Iterator[None]:
    """Around loading weights into such tensors, of which PyTorch warns once for each."""
    with warnings.catch_warnings(action="ignore"):
        yield
