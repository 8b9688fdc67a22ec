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

from detectron2.utils import comm

from wpl_d2.command_line import parse_args
from wpl_d2.data import register_part
from wpl_d2.engine import check_run, launch, load_framework, setup
from wpl_d2.engine.classes import Classes, check_list, classes_of_run
from wpl_d2.evaluation import filled_weigher, judge_pseudo_labels
from wpl_d2.files import make_place, write_text


def main(args: argparse.Namespace) -> None:
    cfg = setup(args)
    check_list(classes_of_run(cfg), Classes.of_list(args.dataset, cfg))
    name = args.dataset if args.images is None else register_part(args.dataset, args.images)
    framework = load_framework(cfg)
    model, weigher = next(iter(framework.deployables().values())), framework.weigher
    if args.scores and weigher is None:
        weigher = filled_weigher(cfg, framework)
    results, agreement = judge_pseudo_labels(cfg, model, weigher, name)
    if args.output and comm.is_main_process():
        by_score = {
            f"{score:g}": {name: asdict(row) for name, row in rows.items()} for score, rows in (agreement or {}).items()
        }
        write_text(args.output, json.dumps({"pseudo_labels": results, "boxes": by_score}, indent=1))


def check(args: argparse.Namespace) -> None:
    check_run(args, judged=[args.dataset], images=args.images)
    if args.output:
        make_place("--output", args.output)


def _parse() -> argparse.Namespace:
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
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="MODEL.WEIGHTS CHECKPOINT, and further pairs")
    parser.set_defaults(eval_only=True, resume=False, num_machines=1, machine_rank=0, dist_url="auto")
    return parse_args(parser)


if __name__ == "__main__":
    launch(main, _parse(), check)
