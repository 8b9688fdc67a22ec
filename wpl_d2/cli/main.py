"""Finds the command that is asked for, parses its arguments and runs it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from .. import __version__
from ..utils.command_line import parse_args
from ..utils.errors import clear_errors, suggest

COMMANDS = {
    "init": "describe a folder of images and masks as a data set",
    "frames": "frames of videos as images to train on",
    "check": "check a data set: lists, images, masks, classes and boxes",
    "train": "train a model",
    "find-lr": "find a learning rate to train with",
    "evaluate": "evaluate a trained model",
    "predict": "label maps, overlays and boxes of images or a video",
    "suggest": "the unlabeled images that are most worth labeling next",
    "export": "write a model to a file for other programs",
    "report": "a page on one run, or on several side by side",
    "cache-boxes": "keep a detector's boxes of whole data sets in a file",
    "judge": "judge pseudo-labels on images that have masks",
    "visualize": "draw what training is fed",
    "show-config": "print a config, with where each value comes from",
    "prepare": "prepare VOC, Cityscapes, COCO or VOC animals",
    "analyze": "count a model's parameters and multiply-adds",
    "summarize": "mean and spread over seeds of runs, as a table",
    "record": "print runs as rows of a table of runs",
    "benchmark": "what a training step, a sample or a prediction costs",
    "benchmark-evaluation": "what the segmentation metric costs",
    "completion": "print a script that completes these words in a shell",
}
"""What each command does, in the order of the help.

A command `do-it` is the module `do_it` beside this one. It has `add_arguments(parser)`, `main(args)`, which may return
an exit status, and a docstring that the command's help begins with. It must not import torch, Detectron2, numpy or
OpenCV before `main` is called.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The `wpl` command.

    Args:
        argv: the arguments, by default those of this process.

    Returns:
        the exit status.
    """
    width = max(map(len, COMMANDS)) + 2
    parser = argparse.ArgumentParser(
        prog="wpl",
        description="Semantic segmentation from few labels.",
        epilog="commands:\n" + "\n".join(f"  {name:{width}}{text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", metavar="COMMAND", help="one of those below; `wpl COMMAND --help` says more")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="of the command")
    args = parser.parse_args((sys.argv[1:] if argv is None else argv) or ["--help"])
    if args.command not in COMMANDS:
        parser.error(f"no command {args.command!r}; {suggest(args.command, COMMANDS)}")
    return run(args.command, args.arguments, f"wpl {args.command}")


def run(name: str, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run one command.

    Args:
        name: such as "cache-boxes"; not only one of `COMMANDS`.
        argv: its arguments, by default those of this process.
        prog: how it was called, by default the name of this process's program.

    Returns:
        the exit status.

    Raises:
        SystemExit: on wrong arguments and other errors of the user's.
    """
    module = load_command(name)
    args = parse_args(build_parser(name, prog), argv)
    with clear_errors():
        return module.main(args) or 0


def build_parser(name: str, prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of one command; arguments as for `run`."""
    module = load_command(name)
    description, formatter = module.__doc__, argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=description, formatter_class=formatter)
    module.add_arguments(parser)
    return parser


def load_command(name: str) -> ModuleType:
    """The module of a command; `name` as for `run`."""
    return import_module(f".{name.replace('-', '_')}", __package__)
