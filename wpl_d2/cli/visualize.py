"""Draw what training is fed: labeled views with masks, boxes and second images, and unlabeled views, weak to mixed.

Mixing is shown as CutMix alone, in every picture, whatever FRAMEWORK.NAME and FRAMEWORK.CUTMIX.PROB are: AEL and AugSeg
mix by what the model knows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..utils.command_line import positive_int
from ..utils.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--output", required=True, type=Path, help="folder for the pictures")
    parser.add_argument("--num", type=positive_int, default=8, help="pictures of each stream")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="pairs that override the config")


def main(args: argparse.Namespace) -> None:
    """Draw what training is fed."""
    from detectron2.data import MetadataCatalog
    from tqdm import tqdm

    from ..config import load_cfg
    from ..data import counted_seed, seeded, setup_datasets
    from ..data.loader import labeled_dataset, unlabeled_dataset
    from ..data.pixel_values import PixelLayout
    from ..utils.files import make_output_folder, save_png
    from ..visualization.sheet import compose
    from ..visualization.training_views import VALID, draw_labeled, draw_unlabeled, render_sample

    cfg = load_cfg(args.config_file, args.opts)
    setup_datasets(cfg)
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN: names no list; name a labeled one")
    make_output_folder("--output", args.output)
    labeled, layout = labeled_dataset(cfg), PixelLayout.from_config(cfg)
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    legend = dict(zip(metadata.stuff_classes, metadata.stuff_colors, strict=True))
    for counter in tqdm(range(args.num), desc="labeled", unit="image"):
        row = draw_labeled(render_sample(labeled[counter], layout), metadata)
        heading = f"{', '.join(cfg.DATASETS.TRAIN)}: sample {counter}"
        save_png(compose([row], legend, heading, VALID), args.output / f"labeled_{counter:04d}.png")
    if not cfg.DATASETS.UNLABELED:
        return
    cfg.INPUT.STRONG.DEVICE = "cpu"
    unlabeled = unlabeled_dataset(cfg)
    for counter in tqdm(range(args.num), desc="unlabeled", unit="image"):
        with seeded(counted_seed(cfg.SEED, "visualize", counter)):
            sample, partner = (render_sample(unlabeled[place], layout) for place in (counter, counter + 1))
            row = draw_unlabeled(sample, partner, cfg, metadata)
        heading = f"{', '.join(cfg.DATASETS.UNLABELED)}: sample {counter}, mixed with sample {counter + 1}"
        colors = legend if "boxes" in row else {}
        save_png(compose([row], colors, heading, VALID), args.output / f"unlabeled_{counter:04d}.png")
