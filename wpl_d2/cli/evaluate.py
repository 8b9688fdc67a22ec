"""Evaluate a trained model: `wpl evaluate CONFIG MODEL.WEIGHTS output/first/model_final.pth [KEY VALUE ...]`.

CONFIG is that of the training, or the config.yaml in its folder.
"""

from __future__ import annotations

import argparse

from . import train_net
from .train import add_config_argument, take_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments: those of Detectron2's training scripts, and CONFIG."""
    add_config_argument(parser)
    train_net.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    """Evaluate a trained model."""
    take_config(args)
    args.eval_only = True
    train_net.main(args)
