"""Export a model to a file for other programs.

The file maps RGB images of any size, as floats in 0..255, to logits of the same size. It is read back and compared with
the model on real images: those of --images, or of the training's data set. A file that differs is not kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .choices import FORMATS, MODELS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--weights", required=True, help="a training's checkpoint, or a .safetensors export")
    parser.add_argument(
        "--format", required=True, help=", ".join(f"{name} ({suffix})" for name, suffix in FORMATS.items())
    )
    parser.add_argument("--output", required=True, type=Path, help="the file")
    parser.add_argument("--images", default="", help="folder or pattern of images to compare on")
    parser.add_argument("--model", default="", choices=MODELS, help="default: the teacher, if there is one")
    parser.add_argument("--boxes", action="store_true", help="put the detector in, too (torchscript, safetensors)")


def main(args: argparse.Namespace) -> None:
    """Export a model."""
    from ..export import export_model
    from ..utils.files import make_output_parent

    make_output_parent("--output", args.output)
    agreement = export_model(args.weights, args.format, args.output, args.images, args.model, args.boxes)
    print(f"compared with the model: {agreement}")
    print(f"{args.output}: {args.output.stat().st_size / 2**20:.1f} MiB")
