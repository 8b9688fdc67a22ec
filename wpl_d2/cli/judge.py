r"""Judge the pseudo-labels of a trained model, and the boxes that RPPI believes, on images that have masks.

wpl judge --config-file configs/camvid/mean_teacher_wpl.yaml --output judged.json \
    --dataset camvid_1_30_unlabeled MODEL.WEIGHTS output/camvid/mean_teacher_wpl_1_30/model_final.pth

Prints, for every class at RPPI.BOX_SCORE and for all objects together at TEST.BOX_SCORES, how many boxes are right (IoU
>= TEST.BOX_IOU), and how many of the pixels with a confidence >= RPPI.CONF: of all, in a box of their class, outside of
one. With MODEL.DETECTOR.MODE cached the boxes are those of MODEL.DETECTOR.CACHE, so that detectors can be compared on
the labels of one model that has none. `--images N` judges a random part of the list, always the same one.
The AUROC of what weights can be made of is printed too: of a training with weights, or with `--scores`.
--engine ray spreads the images over the workers of a Ray cluster, with the same figures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .engine import add_engine_arguments, build_engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--config-file", required=True, help="that of the training")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="such as camvid_1_30_unlabeled")
    parser.add_argument(
        "--images", type=int, metavar="N", help="judge N random images of the list, of those with masks; by default all"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="a JSON file, or its URL in a bucket, for all numbers of every class and score"
    )
    parser.add_argument(
        "--scores",
        action="store_true",
        help="of a training without weights too: judge by what they could be made, with a bank of labeled images",
    )
    parser.add_argument("--num-gpus", type=int, default=1, help="processes")
    add_engine_arguments(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="MODEL.WEIGHTS CHECKPOINT, and further pairs")
    parser.set_defaults(eval_only=True, resume=False, num_machines=1, machine_rank=0, dist_url="auto")


def main(args: argparse.Namespace) -> None:
    """Judge pseudo-labels."""
    from ..engine import launch

    launch(_judge, args, _check)


def _judge(args: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict

    from detectron2.utils import comm

    from ..checkpoint import load_framework
    from ..checkpoint.classes import ClassNames, check_same_classes, get_run_classes
    from ..data import EvalDataset, register_part
    from ..data.file_cache import cache_file
    from ..engine import setup
    from ..evaluation import filled_weigher, judge_pseudo_labels
    from ..evaluation.parts import PartsEvaluation
    from ..inference.engines import LocalEngine, SentFile
    from ..utils.buckets import output_file
    from ..utils.files import write_text

    cfg = setup(args)
    check_same_classes(get_run_classes(cfg), ClassNames.from_dataset(args.dataset, cfg))
    name = args.dataset if args.images is None else register_part(args.dataset, args.images)
    framework = load_framework(cfg)
    model, weigher = next(iter(framework.eval_models().values())), framework.weigher
    if args.scores and weigher is None:
        weigher = filled_weigher(cfg, framework)
    dataset, engine = EvalDataset(cfg, name=name, key="--dataset"), build_engine(args)
    if isinstance(engine, LocalEngine):
        results, agreement = judge_pseudo_labels(cfg, model, weigher, dataset)
    else:
        parts = PartsEvaluation(engine, SentFile.read(cfg.MODEL.WEIGHTS))
        results, agreement = parts.judge(cfg, model, weigher, dataset, args.dataset, lenient=False)
    if args.output and comm.is_main_process():
        by_score = {
            f"{score:g}": {name: asdict(row) for name, row in rows.items()} for score, rows in (agreement or {}).items()
        }
        with output_file(args.output, cache_file("outputs")) as file:
            write_text(file, json.dumps({"pseudo_labels": results, "boxes": by_score}, indent=1))


def _check(args: argparse.Namespace) -> None:
    from ..engine import check_run
    from ..utils.buckets import is_url
    from ..utils.files import make_output_parent

    build_engine(args)
    check_run(args, judged=[args.dataset], images=args.images)
    if args.output and not is_url(args.output):
        make_output_parent("--output", Path(args.output))
