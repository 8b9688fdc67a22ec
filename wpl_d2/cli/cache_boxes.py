r"""Write a detector's boxes of whole data sets into one file, for MODEL.DETECTOR.MODE cached.

wpl cache-boxes --weights output/detector/camvid_1_30/model_final.pth \
    --dataset camvid_1_30_unlabeled --output output/detector/camvid_1_30/boxes.npz

A run that was stopped goes on where it was; a file that is there gets the images that it lacks. --engine ray spreads
the images over the workers of a Ray cluster.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .engine import add_engine_arguments, build_engine
from .train_net import add_process_arguments

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn

    from ..checkpoint.classes import ClassNames
    from ..inference.engines import SentFile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--weights", required=True, help="checkpoint of the detector, or of a model that shares one")
    parser.add_argument("--dataset", required=True, nargs="+", metavar="NAME", help="such as camvid_1_30_unlabeled")
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="the file of boxes, FILE.npz; or its URL in a bucket"
    )
    parser.add_argument("--description", default="", metavar="YAML", help="of the data set, by default the training's")
    add_process_arguments(parser)
    add_engine_arguments(parser)


def main(args: argparse.Namespace) -> None:
    """Write a detector's boxes into a file."""
    from ..engine import launch

    launch(_cache, args, _check)


def _cache(args: argparse.Namespace) -> None:
    import logging
    from functools import partial

    from detectron2.utils import comm
    from detectron2.utils.logger import setup_logger

    from ..checkpoint.classes import ClassNames
    from ..data.datasets import load_description
    from ..data.detection_cache import CacheMetadata
    from ..data.file_cache import cache_file
    from ..inference.detection_caching import cache_detections
    from ..inference.engines import SentFile
    from ..utils.buckets import output_file
    from ..utils.files import file_digest, read_yaml

    setup_logger(distributed_rank=comm.get_rank(), name="wpl_d2")
    model, metadata = _load(args.weights)
    cfg, classes = metadata["config"], metadata["classes"]
    records = _find_records(args, cfg, ClassNames.from_checkpoint(metadata))
    origin = CacheMetadata(file_digest(args.weights), tuple(classes), cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST)
    workers, engine = (cfg.DATALOADER.NUM_WORKERS if args.engine == "local" else 0), build_engine(args)
    opener: Any = model
    if args.engine != "local":
        described = cfg.DATASETS.DESCRIPTION
        root = read_yaml(load_description(described).path)["root"] if described else ""
        opener = partial(_open, SentFile.read(args.weights), root)
    with output_file(args.output, cache_file("outputs")) as file:
        cache = cache_detections(opener, records, origin, metadata["objects"], file, workers, engine)
    count = sum(len(detections.scores) for _, detections in cache.values())
    logging.getLogger("wpl_d2").info(
        "%d boxes with score >= %g of %d images: %s", count, origin.min_score, len(cache), args.output
    )


def _load(weights: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    import torch

    from ..checkpoint import load_model

    return load_model(str(weights), device="cuda" if torch.cuda.is_available() else "cpu")


def _open(weights: SentFile, root: str) -> nn.Module:
    """The model, and the images of a data set in a bucket, on a machine of the cluster."""
    from ..data.datasets.bucket_copy import copy_of_bucket
    from ..utils.buckets import is_url

    if is_url(root):
        copy_of_bucket(root)
    with weights.unpacked() as file:
        return _load(file)[0]


def _check(args: argparse.Namespace) -> None:
    from ..checkpoint import load_checkpoint
    from ..checkpoint.classes import ClassNames
    from ..checkpoint.metadata import restore_cfg
    from ..utils.buckets import is_url
    from ..utils.files import make_output_parent

    build_engine(args)
    content = load_checkpoint(args.weights)
    _find_records(args, restore_cfg(content["config"], args.weights), ClassNames.from_checkpoint(content))
    if not is_url(args.output):
        make_output_parent("--output", Path(args.output))


def _find_records(args: argparse.Namespace, cfg: CfgNode, trained: ClassNames) -> list[dict[str, Any]]:
    """The images of the lists, if the detector of the config, trained on these classes, can look at them."""
    from dataclasses import replace
    from itertools import chain

    from ..checkpoint.classes import ClassNames
    from ..data import setup_datasets
    from ..data.datasets.setup import check_registered
    from ..data.loader import load_records
    from ..utils.errors import InputError

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
