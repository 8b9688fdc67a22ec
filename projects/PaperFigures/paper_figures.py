#!/usr/bin/env python
"""The paper's figures of one's own trainings, each as PNG, SVG and the numbers as CSV.

paper_figures.py list                                   the figures and what they show
paper_figures.py draw FIGURE RUN [RUN...]               FIGURE.png, .svg and .csv in output/figures

RUN is the folder of a training (OUTPUT_DIR). Figures over training read the checkpoints that it kept
(SOLVER.CHECKPOINTS_TO_KEEP), what its evaluations found (TEST.PSEUDO_LABELS), and prototypes.npy
(WEIGHTING.RECORD_PERIOD). Labels are judged on images with masks alone: those of --dataset, by default the first of
DATASETS.TEST.
"""

import argparse
from pathlib import Path

from tabulate import tabulate
from wpl_figures.figures import FIGURES, Options
from wpl_figures.trained import read_trainings

from wpl_d2.utils.errors import check_name, clear_errors


def list_figures(args: argparse.Namespace) -> None:
    """Print a line for each figure."""
    print(tabulate([(name, text) for name, (_, text) in FIGURES.items()], ["figure", "shows"], disable_numparse=True))


def draw(args: argparse.Namespace) -> None:
    """Draw one figure."""
    figure, _ = FIGURES[check_name("FIGURE", args.figure, FIGURES)]
    options = Options(
        args.dataset, args.images, tuple(args.choose), tuple(args.classes), args.k, args.score, args.confidence
    )
    drawn = figure(read_trainings(args.runs), options)
    for file in drawn.save(args.output / args.figure):
        print(file)


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    listed = commands.add_parser("list", help="the figures and what they show")
    listed.set_defaults(call=list_figures)
    drawn = commands.add_parser("draw", help="draw a figure")
    drawn.add_argument("figure", metavar="FIGURE", help="its number, such as 5a or s4")
    drawn.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a training")
    drawn.add_argument("--dataset", default="", metavar="NAME", help="images with masks, such as voc_val")
    drawn.add_argument("--images", type=int, metavar="N", help="a random part of them; pictures: by default 3")
    drawn.add_argument("--choose", type=names, default=[], metavar="A,B", help="these of them, by their ids")
    drawn.add_argument("--classes", type=names, default=[], metavar="A,B", help="names of classes")
    drawn.add_argument("--k", type=int, default=0, help="channels that are compared; by default WEIGHTING.K")
    drawn.add_argument("--score", type=float, default=0.9, help="least score of a box; by default %(default)s")
    drawn.add_argument("--confidence", type=float, default=0.95, help="least one in figure 1; by default %(default)s")
    drawn.add_argument("--output", type=Path, default=Path("output/figures"), metavar="FOLDER")
    drawn.set_defaults(call=draw)
    return parser.parse_args()


def names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    with clear_errors():
        arguments = parse_args()
        arguments.call(arguments)
