#!/usr/bin/env python
r"""Judge the pseudo-labels of a trained model, and the boxes that RPPI believes, on images that have masks.

tools/judge_pseudo_labels.py --config-file configs/camvid/mean_teacher_wpl_1_30.yaml --output judged.json \
    --dataset camvid_1_30_unlabeled MODEL.WEIGHTS output/camvid/mean_teacher_wpl_1_30/model_final.pth

Prints, for every class at RPPI.BOX_SCORE and for all objects together at TEST.BOX_SCORES, how many boxes are right (IoU
>= TEST.BOX_IOU), and how many of the pixels with a confidence >= RPPI.CONF: of all, in a box of their class, outside of
one. With MODEL.DETECTOR.MODE cached the boxes are those of MODEL.DETECTOR.CACHE, so that detectors can be compared on
the labels of one model that has none. `--images N` judges a random part of the list, always the same one.
The AUROC of what weights can be made of is printed too: of a training with weights, or with `--scores`.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from wpl_d2.data import register_part
from wpl_d2.engine import launch, load_framework, setup
from wpl_d2.errors import check_name, clear_errors
from wpl_d2.evaluation import filled_weigher, judge_pseudo_labels
from wpl_d2.files import replace_file


def main(args: argparse.Namespace) -> None:
    cfg = setup(args)
    name = check_name("--dataset", args.dataset, DatasetCatalog)
    if args.images is not None:
        name = register_part(name, args.images)
    framework = load_framework(cfg)
    model, weigher = next(iter(framework.deployables().values())), framework.weigher
    if args.scores and weigher is None:
        weigher = filled_weigher(cfg, framework)
    results, agreement = judge_pseudo_labels(cfg, model, weigher, name)
    if args.output and comm.is_main_process():
        by_score = {
            f"{score:g}": {name: asdict(row) for name, row in rows.items()} for score, rows in (agreement or {}).items()
        }
        args.output.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"pseudo_labels": results, "boxes": by_score}, indent=1)
        replace_file(args.output, lambda unfinished: unfinished.write_text(text))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="that of the training")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="such as camvid_1_30_unlabeled")
    parser.add_argument(
        "--images", type=int, metavar="N", help="judge N random images of the list, of those with masks; by default all"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="a JSON file for all numbers of every class and score"
    )
    parser.add_argument(
        "--scores",
        action="store_true",
        help="of a training without weights too: judge by what they could be made, with a bank of labeled images",
    )
    parser.add_argument("--num-gpus", type=int, default=1, help="processes")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="MODEL.WEIGHTS checkpoint, further KEY VALUE pairs")
    parser.set_defaults(eval_only=True, num_machines=1, machine_rank=0, dist_url="auto")
    return parser.parse_args()


if __name__ == "__main__":
    with clear_errors():
        launch(main, parse_args())
