"""Evaluate a trained model: `wpl evaluate CONFIG MODEL.WEIGHTS output/first/model_final.pth [KEY VALUE ...]`."""

from __future__ import annotations

import argparse

from . import train

add_arguments = train.add_arguments


def main(args: argparse.Namespace) -> None:
    """Evaluate a trained model."""
    args.eval_only = True
    train.main(args)
