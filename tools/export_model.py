#!/usr/bin/env python
"""Export a model: `tools/export_model.py --weights CHECKPOINT --format onnx --output model.onnx`.

The file maps RGB images of any size, as floats in 0..255, to logits of the same size. It is read back and compared with
the model on real images: those of --images, or of the training's data set. A file that differs is not kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from wpl_d2.export import FORMATS, export_model
from wpl_d2.modeling.weights import MODEL_NAMES
from wpl_d2.utils.errors import clear_errors
from wpl_d2.utils.files import make_output_parent


def main() -> None:
    args = _parse()
    make_output_parent("--output", args.output)
    agreement = export_model(args.weights, args.format, args.output, args.images, args.model, args.boxes)
    print(f"compared with the model: {agreement}")
    print(f"{args.output}: {args.output.stat().st_size / 2**20:.1f} MiB")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="a training's checkpoint, or a .safetensors export")
    parser.add_argument(
        "--format", required=True, help=", ".join(f"{name} ({FORMATS[name].suffix})" for name in FORMATS)
    )
    parser.add_argument("--output", required=True, type=Path, help="the file")
    parser.add_argument("--images", default="", help="folder or pattern of images to compare on")
    parser.add_argument("--model", default="", choices=MODEL_NAMES, help="default: the teacher, if there is one")
    parser.add_argument("--boxes", action="store_true", help="put the detector in, too (torchscript, safetensors)")
    return parser.parse_args()


if __name__ == "__main__":
    with clear_errors():
        main()
