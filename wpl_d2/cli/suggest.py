"""Which unlabeled images are most worth labeling next, with a page that shows why.

wpl suggest output/fields -n 20
wpl suggest output/fields -n 20 --dataset fields_more --weights output/fields/model_best.pth

The images are divided into groups that look alike to the model; of each the one is taken whose predicted objects are
least sure. Their paths are in suggested.txt, a line each, and suggested.html shows them. No mask is opened. Trailing
KEY VALUE pairs set keys below TEST.INFERENCE. Images that cannot be read or predicted are named and left out; the exit
status is then 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..utils.command_line import positive_int
from .choices import MODELS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a training (OUTPUT_DIR)")
    parser.add_argument("-n", "--number", type=positive_int, default=20, help="of images to suggest (default: 20)")
    parser.add_argument(
        "--dataset",
        nargs="+",
        default=[],
        metavar="NAME",
        help="the lists to choose from, without what the training had as labeled (default: its DATASETS.UNLABELED)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the page (default: suggested.html in RUN); the list is beside it"
    )
    parser.add_argument("--weights", default="", help="a checkpoint of the training (default: the newest)")
    parser.add_argument("--model", default="", choices=MODELS, help="of the checkpoint (default: the teacher, if any)")
    parser.add_argument("--batch-size", type=positive_int, default=4, help="images of one size at once (default: 4)")
    parser.add_argument("--device", default="", help="default: cuda, where there is one")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="pairs below TEST.INFERENCE")


def main(args: argparse.Namespace) -> int:
    """Suggest images."""
    import sys

    import torch
    from tqdm import tqdm

    from ..checkpoint import load_model
    from ..checkpoint.checkpointer import checkpoints_of
    from ..config.validation import check_device
    from ..inference.suggestion import ImageJudge, candidate_records, choose_images, judge_images
    from ..report.suggestion import write_suggestions
    from ..utils.errors import InputError
    from ..utils.files import make_output_parent

    page = args.output or args.run / "suggested.html"
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device("--device", device)
    weights = args.weights or next(map(str, checkpoints_of(args.run)), "")
    if not weights:
        raise InputError(f"{args.run}: has no checkpoint; give the folder of a training, or --weights")
    model, metadata = load_model(weights, args.model, device)
    judge = ImageJudge(model, metadata, device, args.opts)
    records = candidate_records(metadata["config"], args.dataset)
    make_output_parent("--output", page)
    skipped: list[str] = []

    def report(text: str) -> None:
        tqdm.write(text, file=sys.stderr)
        skipped.append(text)

    survey = judge_images(judge, records, args.batch_size, report)
    choices = choose_images(survey.trust, survey.embeddings, args.number)
    write_suggestions(page, args.run, judge, survey, choices, metadata)
    print(
        f"{len(choices)} of {len(survey.records)} images suggested, {len(skipped)} left out: "
        f"{page.with_suffix('.txt')}, shown in {page}"
    )
    return 1 if skipped else 0
