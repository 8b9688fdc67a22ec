"""Print the config of a run as YAML, each value with where it comes from.

`wpl show-config --config-file configs/voc/unimatch_wpl.yaml [--changed] [KEY VALUE ...]`

A value comes from Detectron2's and this project's defaults, from a file (the config or a _BASE_ of it), or from the
command line. What a run resolves when it starts, such as the lists of a split, epochs or a smaller batch, is printed
resolved, with the value that it had before.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator
from typing import Any

import yaml


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a YAML config")
    parser.add_argument("--changed", action="store_true", help="only keys whose value is not the default")
    parser.add_argument(
        "--eval-only",
        action="store_true",
        help="as an evaluation reads it, which resolves no epochs and needs no lists",
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="pairs that override the config")


def main(args: argparse.Namespace) -> None:
    """Print a config."""
    from ..config import get_cfg
    from ..config.config import leaf_keys, load_layers, merge_layers
    from ..config.layers import COMMAND_LINE, layer_of, value_of
    from ..engine.setup import read_cfg

    cfg, _ = read_cfg(args)
    layers = load_layers(args.config_file, args.opts)
    given, default = merge_layers(layers), get_cfg()
    sources = ["default", *("command line" if source == COMMAND_LINE else source for source, _ in layers)]
    rows = []
    for key in leaf_keys(cfg):
        value, before = value_of(cfg, key), value_of(given, key)
        source = sources[layer_of(layers, key) + 1]
        if value != value_of(default, key) or not args.changed:
            rows.append((key, value, source if value == before else f"resolved, was {_plain(before)} ({source})"))
    print("\n".join(_to_lines(rows)))


def _to_lines(rows: Iterable[tuple[str, Any, str]]) -> Iterator[str]:
    """Nested YAML, a line for each section and each value.

    Args:
        rows: keys such as "SOLVER.MAX_ITER", values, and comments to stand behind them.
    """
    above: list[str] = []
    for key, value, comment in sorted(rows, key=lambda row: row[0].split(".")):
        *sections, name = key.split(".")
        for depth, section in enumerate(sections):
            if sections[: depth + 1] != above[: depth + 1]:
                yield f"{'  ' * depth}{section}:"
        above = sections
        yield f"{'  ' * len(sections)}{name}: {_plain(value)}  # {comment}"


def _plain(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump([value], default_flow_style=True, width=math.inf).strip()[1:-1]
