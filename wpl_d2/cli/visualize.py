"""Draw what training is fed: labeled views with masks, boxes and second images, and unlabeled views, weak to mixed.

Mixing is shown as CutMix alone, in every picture, whatever FRAMEWORK.NAME and FRAMEWORK.CUTMIX.PROB are: AEL and AugSeg
mix by what the model knows.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.command_line import positive_int
from ..utils.errors import InputError

if TYPE_CHECKING:
    import numpy as np


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
    from ..utils.files import make_output_folder
    from ..visualization.training_views import draw_labeled, draw_unlabeled

    cfg = load_cfg(args.config_file, args.opts)
    setup_datasets(cfg)
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN: names no list; name a labeled one")
    make_output_folder("--output", args.output)
    labeled = labeled_dataset(cfg)
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    for counter in tqdm(range(args.num), desc="labeled", unit="image"):
        _save(draw_labeled(labeled[counter], metadata), args.output / f"labeled_{counter:04d}.png")
    if not cfg.DATASETS.UNLABELED:
        return
    cfg.INPUT.STRONG.DEVICE = "cpu"
    unlabeled = unlabeled_dataset(cfg)
    for counter in tqdm(range(args.num), desc="unlabeled", unit="image"):
        with seeded(counted_seed(cfg.SEED, "visualize", counter)):
            panels = draw_unlabeled(unlabeled[counter], unlabeled[counter + 1], cfg, metadata)
        _save(panels, args.output / f"unlabeled_{counter:04d}.png")


def _save(panels: list[np.ndarray], file: Path) -> None:
    import numpy as np
    from PIL import Image

    from ..utils.files import save_png

    # Detectron2's drawings may be a pixel larger or smaller than the image.
    height, width = panels[0].shape[:2]
    same = [np.asarray(Image.fromarray(panel).resize((width, height))) for panel in panels]
    save_png(Image.fromarray(np.concatenate(same, axis=1)), file)
