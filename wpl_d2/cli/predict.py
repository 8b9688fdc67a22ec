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

Input and output may be folders of a bucket (s3://...). --engine ray spreads the images over the workers of a Ray
cluster, with the same results. A prediction that was stopped goes on where it was when it is started again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.command_line import fraction, positive_int
from ..utils.errors import InputError
from .choices import MAPS, MASK_FORMATS, MODELS
from .engine import add_engine_arguments, build_engine

if TYPE_CHECKING:
    from ..inference import Predictor, RuntimeModel, Source
    from ..inference.engines import SentFile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--weights", required=True, help="checkpoint or exported file")
    parser.add_argument(
        "--input", required=True, help="folder, also of a bucket, list (.txt), pattern in quotes, image or video"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results, also of a bucket")
    parser.add_argument("--format", default="index_png", choices=MASK_FORMATS, help="of the masks (default: index_png)")
    parser.add_argument("--save", type=_maps, default=(), metavar="MAPS", help="confidence, probabilities, or both")
    parser.add_argument("--model", default="", choices=MODELS, help="of a checkpoint (default: the teacher, if any)")
    parser.add_argument(
        "--trust-code", action="store_true", help="run a TorchScript file, a program that can do anything"
    )
    parser.add_argument("--batch-size", type=positive_int, default=4, help="images of one size at once (default: 4)")
    parser.add_argument("--min-score", type=fraction, default=0.5, help="of the boxes (default: 0.5)")
    parser.add_argument("--device", default="", help="default: cuda, where there is one")
    add_engine_arguments(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="pairs below TEST.INFERENCE")


def main(args: argparse.Namespace) -> int:
    """Predict images or a video."""
    from functools import partial

    from .. import __version__
    from ..inference import PredictionWriter, open_source, predict
    from ..inference.engines import LocalEngine, SentFile
    from ..utils.files import file_digest

    engine = build_engine(args)
    model, predictor = open_predictor(Path(args.weights), args)
    source = open_source(args.input, args.output, predictor.layout)
    _check_places(args, source)
    opener = predictor if isinstance(engine, LocalEngine) else partial(_open_sent, SentFile.read(args.weights), args)
    facts = (
        __version__,
        file_digest(args.weights),
        *(getattr(args, key) for key in ("model", "format", "save", "min_score", "opts")),
    )
    with PredictionWriter(args.output, model.metadata, model.detect is not None, source, args.format) as writer:
        predict(source, opener, writer, args.batch_size, engine, None if source.video else facts)
    for text in source.ignored():
        print(f"left out: {text}")
    if writer.without_overlay:
        print(f"without an overlay: {len(writer.without_overlay)} images")
    print(f"{writer.count} images predicted, {len(writer.skipped)} skipped: {args.output}")
    return 1 if writer.skipped or writer.without_overlay else 0


def open_predictor(weights: Path, args: argparse.Namespace) -> tuple[RuntimeModel, Predictor]:
    """The model in a file, and what predicts with it as the arguments say, on this machine's GPU if it has one."""
    import torch

    from ..export import open_model
    from ..inference import Predictor

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = open_model(weights, args.model, device, args.trust_code)
    return model, Predictor(model, device, args.min_score, args.opts, args.save)


def _open_sent(weights: SentFile, args: argparse.Namespace) -> Predictor:
    with weights.unpacked() as file:
        return open_predictor(file, args)[1]


def _check_places(args: argparse.Namespace, source: Source) -> None:
    """Check that the results can be where they shall be, and made where they shall be made."""
    from ..utils.buckets import is_url
    from ..utils.files import make_output_folder

    away = is_url(args.output) or is_url(source.place)
    if source.video and (args.engine == "ray" or away):
        raise InputError(
            f"{args.input}: a video is one stream; give its frames as images (`wpl frames`), or leave out "
            "--engine and give a folder here as --output"
        )
    if args.format == "labelme" and away:
        raise InputError("--format: labelme leads from each file to its image, on a disk; take another one for buckets")
    if not is_url(args.output):
        make_output_folder("--output", Path(args.output))


def _maps(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in MAPS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not known; give {' or '.join(MAPS)}, or both with a comma")
    return names
