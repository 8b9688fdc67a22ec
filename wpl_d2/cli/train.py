"""Train a model: `wpl train configs/quickstart.yaml [KEY VALUE ...]`."""

from __future__ import annotations

import argparse

from . import train_net


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments: those of Detectron2's training scripts, and the config by its place."""
    parser.add_argument("config", nargs="?", default="", metavar="CONFIG", help="a config, as with --config-file")
    train_net.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    """Train a model, in smaller micro-batches if the memory is too small."""
    from ..engine import check_run, launch_within_memory

    take_config(args)
    launch_within_memory(train_net.train_or_evaluate, args, check_run)


def take_config(args: argparse.Namespace) -> None:
    """Sort out, in place, what stands where CONFIG may stand."""
    if args.config_file and args.config:
        args.opts.insert(0, args.config)
    else:
        args.config_file = args.config_file or args.config
