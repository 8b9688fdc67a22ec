"""The arguments of commands that can spread their work over a cluster, and what they mean."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..utils.command_line import positive_int
from ..utils.errors import InputError

if TYPE_CHECKING:
    from ..inference.engines import Engine


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --engine, --address and --workers."""
    parser.add_argument(
        "--engine",
        default="local",
        choices=("local", "ray"),
        help="ray: by the workers of a Ray cluster (default: local)",
    )
    parser.add_argument(
        "--address", default="", help="of a running Ray cluster, such as auto (default: one is started here)"
    )
    parser.add_argument(
        "--workers", type=positive_int, default=0, help="of Ray, at most (default: a GPU, or CPU, each)"
    )


def build_engine(args: argparse.Namespace) -> Engine:
    """The engine that was asked for.

    Raises:
        InputError: it is not installed, or options of another one were given.
    """
    from ..inference.engines import LocalEngine, RayEngine

    if args.engine == "ray":
        for key in ("num_gpus", "num_machines"):
            if getattr(args, key, 1) > 1:
                raise InputError(
                    f"--{key.replace('_', '-')}: starts processes of its own; leave it out with --engine ray"
                )
        return RayEngine(args.address, args.workers)
    for key in ("address", "workers"):
        if getattr(args, key):
            raise InputError(f"--{key}: is of a Ray cluster; add --engine ray, or leave it out")
    return LocalEngine()
