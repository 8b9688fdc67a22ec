#!/usr/bin/env python
r"""Write a detector's boxes of whole data sets into one file, for MODEL.DETECTOR.MODE cached.

tools/cache_boxes.py --weights output/detector/camvid_1_30/model_final.pth \
    --dataset camvid_1_30_unlabeled --output output/detector/camvid_1_30/boxes.npz

A run that was stopped goes on where it was; a file that is there gets the images that it lacks.
"""

import argparse
import hashlib
import logging
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from wpl_d2.checkpoint import load_checkpoint, load_model
from wpl_d2.checkpoint.classes import ClassNames
from wpl_d2.checkpoint.metadata import restore_cfg
from wpl_d2.data import setup_datasets
from wpl_d2.data.datasets.setup import check_registered
from wpl_d2.data.detection_cache import CacheMetadata
from wpl_d2.data.loader import load_records
from wpl_d2.engine import launch
from wpl_d2.inference.detection_caching import cache_detections
from wpl_d2.utils.errors import InputError
from wpl_d2.utils.files import make_output_parent


def main(args: argparse.Namespace) -> None:
    setup_logger(distributed_rank=comm.get_rank(), name="wpl_d2")
    model, metadata = load_model(args.weights, device="cuda" if torch.cuda.is_available() else "cpu")
    cfg, classes = metadata["config"], metadata["classes"]
    records = find_records(args, cfg, ClassNames.from_checkpoint(metadata))
    with open(args.weights, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    origin = CacheMetadata(digest, tuple(classes), cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST)
    cache = cache_detections(model, records, origin, metadata["objects"], args.output, cfg.DATALOADER.NUM_WORKERS)
    count = sum(len(detections.scores) for _, detections in cache.values())
    logging.getLogger("wpl_d2").info(
        "%d boxes with score >= %g of %d images: %s", count, origin.min_score, len(cache), args.output
    )


def check(args: argparse.Namespace) -> None:
    content = load_checkpoint(args.weights)
    find_records(args, restore_cfg(content["config"], args.weights), ClassNames.from_checkpoint(content))
    make_output_parent("--output", args.output)


def find_records(args: argparse.Namespace, cfg: CfgNode, trained: ClassNames) -> list[dict[str, Any]]:
    """The images of the lists, if the detector of the config, trained on these classes, can look at them."""
    if cfg.MODEL.DETECTOR.MODE not in ("alone", "shared"):
        raise InputError(f"{args.weights}: has no detector; give a checkpoint of configs/detector or of a shared one")
    cfg.DATASETS.DESCRIPTION = args.description or cfg.DATASETS.DESCRIPTION
    # Those of the training need not be there.
    cfg.DATASETS.TRAIN = cfg.DATASETS.UNLABELED = cfg.DATASETS.TEST = cfg.TEST.PSEUDO_LABELS = ()
    setup_datasets(cfg)
    for name in args.dataset:
        check_registered("--dataset", name)
        # Its objects may be others: the boxes keep the detector's.
        if difference := trained.difference(replace(ClassNames.from_dataset(name, cfg), objects=())):
            raise InputError(
                f"{args.weights}: was trained on other classes than {name} has, {difference}; give another detector"
            )
    return list(chain.from_iterable(load_records(name, "--dataset") for name in args.dataset))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="checkpoint of the detector, or of a model that shares one")
    parser.add_argument("--dataset", required=True, nargs="+", metavar="NAME", help="such as camvid_1_30_unlabeled")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the file of boxes, FILE.npz")
    parser.add_argument("--description", default="", metavar="YAML", help="of the data set, by default the training's")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes on this machine")
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0)
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT of machine 0, where there are several")
    return parser.parse_args()


if __name__ == "__main__":
    launch(main, _parse(), check)
