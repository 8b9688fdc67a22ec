"""Train a model: `wpl train quickstart`, or on data of your own: `wpl train fields.yaml [KEY VALUE ...]`.

Of a data set the lists named labeled, unlabeled and val are used, and output/NAME is the run's folder. In the folder of
an earlier run with the same config it goes on from the newest checkpoint; with another config it says which keys
differ, and does nothing. --new begins anew, and moves what is there to a subfolder.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from . import train_net


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments: those of Detectron2's training scripts, CONFIG and --new."""
    add_config_argument(parser)
    parser.add_argument("--new", action="store_true", help="begin anew, even where an earlier run could go on")
    train_net.add_arguments(parser)


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG, which `take_config` sorts out."""
    text = "a config, a preset's name or a data set's YAML; the same as --config-file"
    parser.add_argument("config", nargs="?", default="", metavar="CONFIG", help=text)


def main(args: argparse.Namespace) -> None:
    """Train a model, in smaller micro-batches if the memory is too small."""
    from ..engine import check_continued_run, check_run, launch_within_memory

    take_config(args)
    check: Callable[[argparse.Namespace], None] = check_run
    if not (args.new or args.resume or args.eval_only):
        args.resume, check = True, check_continued_run
    launch_within_memory(train_net.train_or_evaluate, args, check)


def take_config(args: argparse.Namespace) -> None:
    """Make CONFIG what --config-file is, in place; if that is given, the word in its place is the first key."""
    if args.config_file and args.config:
        args.opts.insert(0, args.config)
    args.config_file = args.config_file or args.config
