#!/usr/bin/env python
"""What a training step, or a training sample, costs: measured beside baselines that take turns with it in one process.

`--part step`: the step with and without weights, how near it is to what the machine could do, and with UniMatch also
the plain step as its authors' code does it, without a detector (`published_step_s`). `--part data`: a labeled and an
unlabeled sample, in seconds of one core's time, beside the operations of UniMatch's own loader. The last line is one
JSON object.

`--suite gpu --output FOLDER`: steps of many configs, one factor at a time around UniMatch with ResNet-101 at crop 513
in bfloat16, the loader beside them, and checks of the GPU against the CPU, in at most 7 minutes. It needs no data, and
no network; what is measured stands in FOLDER/rows.jsonl and, as tables, in FOLDER/table.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from wpl_d2.benchmark.data import compare_samples
from wpl_d2.benchmark.overlap import compare_overlap
from wpl_d2.benchmark.step import compare_steps, first_batch
from wpl_d2.benchmark.suite import Suite
from wpl_d2.config import load_cfg
from wpl_d2.data import setup_datasets
from wpl_d2.utils.command_line import parse_args, positive_int
from wpl_d2.utils.errors import InputError, clear_errors


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    if args.suite:
        Suite(Path(args.output), args.opts).run(args.seconds, args.only or ())
        return
    cfg = load_cfg(args.config_file, args.opts)
    cfg.MODEL.DEVICE = cfg.MODEL.DEVICE if torch.cuda.is_available() else "cpu"
    cfg.FRAMEWORK.BURN_IN = 0
    cfg.MODEL.WEIGHTS = ""
    setup_datasets(cfg)
    if not cfg.DATASETS.UNLABELED:
        raise InputError(
            "DATASETS.UNLABELED: empty, so that there is nothing to weight; name a list of unlabeled images"
        )
    result: dict[str, Any] = {"config": args.config_file}
    if args.part == "data":
        result |= compare_samples(cfg, args.steps)
    else:
        result |= {"device": cfg.MODEL.DEVICE, "threads": args.threads, "steps": args.steps}
        batch = first_batch(cfg)
        result |= compare_steps(cfg, batch, args.steps) | compare_overlap(cfg, batch, args.steps)
    print(json.dumps({key: round(v, 5) if isinstance(v, float) else v for key, v in result.items()}))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", help="path to config file; --suite has its own")
    parser.add_argument("--part", choices=("step", "data"), default="step", help="what is measured (default: step)")
    parser.add_argument("--steps", type=positive_int, default=10, help="measured steps, or samples, of each kind")
    parser.add_argument("--threads", type=positive_int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--suite", choices=("gpu",), help="measure all that a GPU has to show")
    parser.add_argument("--output", help="folder for what --suite measures")
    parser.add_argument("--seconds", type=positive_int, default=420, help="after which --suite ends (default: 420)")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="a part of --suite, by its row's name; give several",
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="pairs that override the config")
    args = parse_args(parser)
    if args.suite and not args.output:
        raise InputError("--output: is missing; name a folder for what --suite measures")
    if not args.suite and not args.config_file:
        raise InputError("--config-file: is missing; give one, such as configs/camvid/mean_teacher_wpl.yaml")
    return args


if __name__ == "__main__":
    with clear_errors():
        main(_parse())
