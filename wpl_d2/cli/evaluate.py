"""Evaluate a trained model: `wpl evaluate CONFIG MODEL.WEIGHTS output/first/model_final.pth [KEY VALUE ...]`.

CONFIG is that of the training, or the config.yaml in its folder. --engine ray spreads the images over the workers of a
Ray cluster, with the same figures; an evaluation that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse

from ..utils.errors import InputError
from . import train_net
from .engine import add_engine_arguments, build_engine
from .train import add_config_argument, take_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments: those of Detectron2's training scripts, and CONFIG."""
    add_config_argument(parser)
    add_engine_arguments(parser)
    train_net.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    """Evaluate a trained model."""
    take_config(args)
    args.eval_only = True
    if args.engine == "local":
        build_engine(args)
        train_net.main(args)
        return
    _evaluate_in_parts(args)


def _evaluate_in_parts(args: argparse.Namespace) -> None:
    from ..checkpoint import load_framework
    from ..engine import check_run, report_results, setup
    from ..evaluation.evaluator import evaluate
    from ..evaluation.parts import PartsEvaluation
    from ..inference.engines import SentFile

    engine = build_engine(args)
    if args.resume:
        raise InputError("--resume: is of --engine local; give MODEL.WEIGHTS the checkpoint to evaluate")
    check_run(args)
    cfg = setup(args)
    framework = load_framework(cfg)
    report_results(cfg, evaluate(cfg, framework, PartsEvaluation(engine, SentFile.read(cfg.MODEL.WEIGHTS))))
