"""Find a learning rate: `wpl find-lr quickstart [KEY VALUE ...]`.

A short training in which the rate rises from step to step. It prints the SOLVER.BASE_LR at which the loss falls
fastest, and draws the curve into OUTPUT_DIR/lr_finder.
"""

from __future__ import annotations

import argparse

from ..utils.command_line import positive_int
from . import train, train_net


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments: those of `wpl train`, and the range of rates."""
    train.add_config_argument(parser)
    parser.add_argument("--lowest", type=float, default=1e-6, metavar="LR", help="first rate (default: %(default)s)")
    parser.add_argument("--highest", type=float, default=1.0, metavar="LR", help="last rate (default: %(default)s)")
    parser.add_argument("--steps", type=positive_int, default=100, help="number of steps (default: %(default)s)")
    train_net.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    """Find a learning rate."""
    from ..engine import check_run, launch
    from ..engine.setup import read_cfg
    from ..utils.errors import InputError

    train.take_config(args)
    if not 0 < args.lowest < args.highest:
        raise InputError(f"--lowest: {args.lowest:g} is not above 0 and below --highest {args.highest:g}; lower it")
    if args.steps < 3:
        raise InputError(f"--steps: {args.steps} make no curve; give 3 or more")
    folder = f"{read_cfg(args)[0].OUTPUT_DIR}/lr_finder"
    args.opts = [*args.opts, "OUTPUT_DIR", folder, "TEST.EVAL_PERIOD", "0", "TEST.EVAL_EPOCHS", "0"]
    launch(find, args, check_run)


def find(args: argparse.Namespace) -> None:
    """Do it in one process of the run; `args` as `check_run` accepted them."""
    from pathlib import Path

    from detectron2.utils import comm

    from ..engine import setup
    from ..engine.lr_finder import LRFinder
    from ..utils.errors import InputError

    cfg = setup(args)
    finder = LRFinder(cfg, args.lowest, args.highest, args.steps)
    finder.resume_or_load(False)
    finder.train()
    if len(finder.curve.losses) < 3:
        raise InputError(f"--lowest: {args.lowest:g} is so high that the loss diverges at once; lower it")
    if comm.is_main_process():
        file = Path(cfg.OUTPUT_DIR) / "lr_finder.png"
        finder.curve.draw(file)
        print(f"curve: {file}\nSOLVER.BASE_LR {finder.curve.suggestion:.2g}")
