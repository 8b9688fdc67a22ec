#!/usr/bin/env python
"""Draw what training is fed: labeled views with masks, boxes and second images, and unlabeled views, weak to mixed.

Mixing is shown as CutMix alone, in every picture, whatever FRAMEWORK.NAME and FRAMEWORK.CUTMIX.PROB are: AEL and AugSeg
mix by what the model knows.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.utils.visualizer import Visualizer
from PIL import Image
from tqdm import tqdm

from wpl_d2.config import load_cfg
from wpl_d2.data import counted_seed, seeded, setup_datasets
from wpl_d2.data.loader import labeled_dataset, unlabeled_dataset
from wpl_d2.frameworks.mixing import cutmix, cutmix_masks
from wpl_d2.structures import IGNORE, Detections, PseudoLabels, class_boxes
from wpl_d2.utils.command_line import parse_args, positive_int
from wpl_d2.utils.errors import InputError, clear_errors
from wpl_d2.utils.files import make_output_folder, save_png
from wpl_d2.visualization.draw import draw_boxes


def main() -> None:
    args = _parse()
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


def draw_labeled(sample: dict[str, Any], metadata: Any) -> list[np.ndarray]:
    """Panels (H, W, 3) uint8: the image, its mask over it, its boxes over it, its valid mask.

    With INPUT.PASTE the same follows of the second image, where there is one.
    """
    image = _to_array(sample["image"])
    panels = [image, Visualizer(image, metadata).draw_sem_seg(sample["sem_seg"]).get_image()]
    if "instances" in sample:
        instances = sample["instances"]
        names = [metadata.thing_classes[i] for i in instances.gt_classes]
        drawing = Visualizer(image, metadata).overlay_instances(boxes=instances.gt_boxes, labels=names)
        panels.append(drawing.get_image())
    panels.append(_to_array(_mask_panel(sample["valid"])))
    return panels + draw_labeled(sample["paste"], metadata) if "paste" in sample else panels


def draw_unlabeled(sample: dict[str, Any], partner: dict[str, Any], cfg: Any, metadata: Any) -> list[np.ndarray]:
    """Panels (H, W, 3) uint8: weak view, strong views, valid mask, then each strong view mixed with another.

    The weak view is followed by its cached boxes from RPPI.BOX_SCORE on, over it, if there are some; a mixed view by
    its valid mask, which moved with the pixels.
    """
    keys = cfg.FRAMEWORK.CUTMIX
    strong = torch.stack([sample["strong"], partner["strong"]], dim=1)
    valid = torch.stack([sample["valid"], partner["valid"]])
    weak = [sample["image"]]
    if "detections" in sample:
        weak.append(_box_panel(sample["image"], sample["detections"], cfg.RPPI.BOX_SCORE, metadata))
    panels = [*weak, *sample["strong"], _mask_panel(sample["valid"])]
    for views in strong:
        boxes = cutmix_masks(2, valid.shape[1:], 1.0, keys.AREA, keys.RATIO)
        images, pseudo = cutmix(views, _blank(valid), boxes)
        panels += [images[0], _mask_panel(pseudo.valid[0])]
    return [_to_array(panel) for panel in panels]


def _box_panel(image: torch.Tensor, found: Detections, min_score: float, metadata: Any) -> torch.Tensor:
    ((boxes, classes),) = class_boxes([found], min_score)
    names = [metadata.stuff_classes[index] for index in classes]
    return torch.from_numpy(draw_boxes(image, boxes, names, [metadata.stuff_colors[index] for index in classes]))


def _blank(valid: torch.Tensor) -> PseudoLabels:
    nothing, one = torch.full(valid.shape, IGNORE), torch.ones(valid.shape)
    return PseudoLabels(nothing, one, valid, torch.zeros_like(valid), one)


def _mask_panel(mask: torch.Tensor) -> torch.Tensor:
    return mask.to(torch.uint8).mul(255).expand(3, -1, -1)


def _to_array(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _save(panels: list[np.ndarray], file: Path) -> None:
    # Detectron2's drawings may be a pixel larger or smaller than the image.
    height, width = panels[0].shape[:2]
    same = [np.asarray(Image.fromarray(panel).resize((width, height))) for panel in panels]
    save_png(Image.fromarray(np.concatenate(same, axis=1)), file)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--output", required=True, type=Path, help="folder for the pictures")
    parser.add_argument("--num", type=positive_int, default=8, help="pictures of each stream")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="pairs that override the config")
    return parse_args(parser)


if __name__ == "__main__":
    with clear_errors():
        main()
