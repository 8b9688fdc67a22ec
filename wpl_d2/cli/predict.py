"""Predict images or a video.

--weights takes a training's checkpoint or a file of `wpl export`; a TorchScript file is a program and needs
--trust-code. Results are masks (--format index_png: DIR/masks, pixel values are class ids; geotiff: the same as TIFF,
with the images' georeference; coco: DIR/masks.json, run lengths; labelme: DIR/labelme, polygons), DIR/overlays, with a
detector DIR/boxes.json (COCO's format), and DIR/predicted.json, which maps each result to its image: a.png to a.jpg,
but a.jpg.png and a.png.png if there is an a.png too. TIFF files of more than 100 megapixels are predicted by windows
that overlap. --save confidence,probabilities adds DIR/confidence (PNG, the probability of each label in 0..255) and
DIR/probabilities (NumPy's .npy, float16 of classes, rows and columns). Trailing KEY VALUE pairs set keys below
TEST.INFERENCE, such as `TEST.INFERENCE.MODE slide`. Ignored files are listed; the exit status is 1 if an image could
not be read, predicted or drawn, or a video is truncated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..utils.command_line import fraction, positive_int
from .choices import MAPS, MASK_FORMATS, MODELS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--weights", required=True, help="checkpoint or exported file")
    parser.add_argument("--input", required=True, help="folder, pattern in quotes, image or video")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--format", default="index_png", choices=MASK_FORMATS, help="of the masks (default: index_png)")
    parser.add_argument("--save", type=_maps, default=(), metavar="MAPS", help="confidence, probabilities, or both")
    parser.add_argument("--model", default="", choices=MODELS, help="of a checkpoint (default: the teacher, if any)")
    parser.add_argument(
        "--trust-code", action="store_true", help="run a TorchScript file, a program that can do anything"
    )
    parser.add_argument("--batch-size", type=positive_int, default=4, help="images of one size at once (default: 4)")
    parser.add_argument("--min-score", type=fraction, default=0.5, help="of the boxes (default: 0.5)")
    parser.add_argument("--device", default="", help="default: cuda, where there is one")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="pairs below TEST.INFERENCE")


def main(args: argparse.Namespace) -> int:
    """Predict images or a video."""
    import torch

    from ..export import open_model
    from ..inference import PredictionWriter, Predictor, open_source, predict
    from ..utils.files import make_output_folder

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = open_model(args.weights, args.model, device, args.trust_code)
    predictor = Predictor(model, device, args.min_score, args.opts, args.save)
    source = open_source(args.input, args.output, predictor.layout)
    make_output_folder("--output", args.output)
    with PredictionWriter(args.output, model.metadata, model.detect is not None, source, args.format) as writer:
        skipped = predict(source, predictor, writer, args.batch_size)
    for text in source.ignored():
        print(f"left out: {text}")
    if writer.without_overlay:
        print(f"without an overlay: {len(writer.without_overlay)} images")
    print(f"{writer.count} images predicted, {len(skipped)} skipped: {args.output}")
    return 1 if skipped or writer.without_overlay else 0


def _maps(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in MAPS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not known; give {' or '.join(MAPS)}, or both with a comma")
    return names
