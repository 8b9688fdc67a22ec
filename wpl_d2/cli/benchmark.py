"""What a training step, or a training sample, costs: measured beside baselines that take turns with it in one process.

`--part step`: the step with and without weights, how near it is to what the machine could do, and with UniMatch also
the plain step as its authors' code does it, without a detector (`published_step_s`). `--part kinds`: each kind of
weight, as a share of the plain step. `--part frameworks`: the step of each framework by its published settings on the
config's network, data and batch: its own part, beside the forward passes of its models, and its weights. `--part
data`: a labeled and an unlabeled sample, in seconds of one core's time, beside the operations of UniMatch's own
loader. `--part predict`: what `wpl predict` takes for an image of DATASETS.TEST, beside the bare network, and until it
has read the first one, beside the import of PyTorch. `--part evaluate`: the same of an evaluation, from files to
metrics. `--part labels`: what it costs to convert a mask of DATASETS.TRAIN once, and to read it then, beside an index
PNG. The last line is one JSON object.

`--suite gpu --output FOLDER`: steps of many configs, one factor at a time around UniMatch with ResNet-101 at crop 513
in bfloat16, the loader beside them, and checks of the GPU against the CPU, in at most 7 minutes. It needs no data, and
no network; what is measured stands in FOLDER/rows.jsonl and, as tables, in FOLDER/table.md.
"""

from __future__ import annotations

import argparse

from ..utils.command_line import positive_int
from ..utils.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--config-file", help="path to config file; --suite has its own")
    parts = ("step", "kinds", "frameworks", "data", "predict", "evaluate", "labels")
    parser.add_argument("--part", choices=parts, default="step", help="what is measured (default: step)")
    parser.add_argument("--steps", type=positive_int, default=10, help="measured steps, samples or images of each kind")
    parser.add_argument("--threads", type=positive_int, help="CPU threads, by default PyTorch's own number")
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


def main(args: argparse.Namespace) -> None:
    """Measure what a step, a sample or a prediction costs."""
    import json
    from pathlib import Path
    from typing import Any

    import torch

    from ..benchmark.data import compare_samples
    from ..benchmark.frameworks import HEAD, compare_frameworks, row
    from ..benchmark.kinds import compare_kinds
    from ..benchmark.labels import compare_labels
    from ..benchmark.overlap import compare_overlap
    from ..benchmark.predict import compare_evaluation, compare_prediction, measure_start
    from ..benchmark.step import compare_steps, first_batch
    from ..benchmark.suite import Suite
    from ..config import load_cfg
    from ..data import setup_datasets

    if args.suite and not args.output:
        raise InputError("--output: is missing; name a folder for what --suite measures")
    if not args.suite and not args.config_file:
        raise InputError("--config-file: is missing; give one, such as configs/camvid/mean_teacher_wpl.yaml")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.suite:
        Suite(Path(args.output), args.opts).run(args.seconds, args.only or ())
        return
    cfg = load_cfg(args.config_file, args.opts)
    cfg.MODEL.DEVICE = cfg.MODEL.DEVICE if torch.cuda.is_available() else "cpu"
    cfg.FRAMEWORK.BURN_IN = 0
    cfg.MODEL.WEIGHTS = ""
    setup_datasets(cfg)
    if args.part not in ("predict", "evaluate", "labels") and not cfg.DATASETS.UNLABELED:
        raise InputError(
            "DATASETS.UNLABELED: empty, so that there is nothing to weight; name a list of unlabeled images"
        )
    result: dict[str, Any] = {"config": args.config_file}
    if args.part == "data":
        result |= compare_samples(cfg, args.steps)
    elif args.part == "labels":
        result |= compare_labels(cfg, args.steps)
    else:
        result |= {"device": cfg.MODEL.DEVICE, "threads": torch.get_num_threads(), "steps": args.steps}
        if args.part == "predict":
            result |= compare_prediction(cfg, args.steps) | measure_start()
        elif args.part == "evaluate":
            result |= compare_evaluation(cfg, args.steps)
        elif args.part == "kinds":
            result |= compare_kinds(cfg, first_batch(cfg), args.steps)
        elif args.part == "frameworks":
            print(HEAD)
            for name, figures in compare_frameworks(cfg, args.steps):
                print(row(name, figures), flush=True)
                result |= {f"{name}_{figure}": value for figure, value in figures.items()}
        else:
            batch = first_batch(cfg)
            result |= compare_steps(cfg, batch, args.steps) | compare_overlap(cfg, batch, args.steps)
    print(json.dumps({key: round(v, 5) if isinstance(v, float) else v for key, v in result.items()}))
