"""Count a model's parameters, multiply-adds and activations, by part.

`wpl analyze --config-file configs/... [KEY VALUE ...]` or `wpl analyze --weights CHECKPOINT`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..utils.command_line import positive_int
from ..utils.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--config-file", default="", help="a model with random weights")
    parser.add_argument("--weights", default="", help="a training's checkpoint, or a .safetensors export")
    parser.add_argument("--size", type=positive_int, nargs=2, default=(512, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="pairs that override the config")


def main(args: argparse.Namespace) -> None:
    """Count a model's parameters, multiply-adds and activations."""
    import logging

    import torch
    from detectron2.utils.analysis import FlopCountAnalysis, activation_count_operators

    from ..checkpoint import load_model

    if bool(args.config_file) == bool(args.weights):
        raise InputError("--config-file: give either a config or the --weights of a trained model")
    if args.weights and args.opts:
        raise InputError(f"overrides: {args.opts[0]} cannot change a trained model; leave it out")
    model = load_model(args.weights)[0] if args.weights else _random_model(args.config_file, args.opts)
    height, width = args.size
    # Noise, so that region proposals pass the detector's own filters as they would on a photograph.
    inputs = [{"image": torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)) * 255}]
    # Else it lists the operations that cost nothing to speak of, such as padding.
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    print(_table(model, FlopCountAnalysis(model, inputs).by_module()))
    activations = activation_count_operators(model, inputs)
    print(f"\nActivations: {sum(activations.values()):.1f} M values (outputs of convolutions and matrix products)")
    print(f"One image of {height}x{width} (height x width); a multiply and its add count as one.")
    if args.config_file:
        print("The weights are random: a detector's box head counts only the proposals that these happen to give.")


def _table(model: nn.Module, flops: Mapping[str, float]) -> str:
    """Parameters in millions and multiply-adds in billions of the model, its parts and their parts.

    Args:
        model: as given to `FlopCountAnalysis`.
        flops: of each module, under the name that the analysis's wrapper gives it.
    """
    from detectron2.utils.analysis import parameter_count
    from tabulate import tabulate

    parameters = parameter_count(model)
    names = [name for name, _ in model.named_modules() if name.count(".") <= 1 and parameters[name]]
    rows = [(name or "all", parameters[name] / 1e6, flops[f"model.{name}".rstrip(".")] / 1e9) for name in names]
    return tabulate(rows, headers=["part", "parameters (M)", "multiply-adds (G)"], floatfmt=".3f")


def _random_model(config_file: str, opts: list[str]) -> nn.Module:
    from .. import build_model
    from ..config import load_cfg
    from ..data import setup_datasets

    cfg = load_cfg(config_file, opts)
    cfg.MODEL.DEVICE = "cpu"
    if not cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
        setup_datasets(cfg)
    return build_model(cfg).eval()
