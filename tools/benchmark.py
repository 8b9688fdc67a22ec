#!/usr/bin/env python
"""What a training step, or a training sample, costs: measured beside baselines that take turns with it in one process.

`--part step`: the step with and without weights, how near it is to what the machine could do, and with UniMatch also
the plain step as its authors' code does it, without a detector (`published_step_s`). `--part kinds`: each kind of
weight, as a share of the plain step. `--part data`: a labeled and an unlabeled sample, in seconds of one core's time,
beside the operations of UniMatch's own loader. The last line is one JSON object.
"""

import argparse
import json
from typing import Any

import torch

from wpl_d2.benchmark.data import compare_samples
from wpl_d2.benchmark.kinds import compare_kinds
from wpl_d2.benchmark.overlap import compare_overlap
from wpl_d2.benchmark.step import compare_steps
from wpl_d2.config import load_cfg
from wpl_d2.data import build_train_loader, setup_datasets
from wpl_d2.frameworks import build_framework
from wpl_d2.utils.command_line import parse_args, positive_int
from wpl_d2.utils.errors import InputError, clear_errors


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
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
        result |= measure_steps(cfg, args.part, args.steps)
    print(json.dumps({key: round(v, 5) if isinstance(v, float) else v for key, v in result.items()}))


def measure_steps(cfg: Any, part: str, steps: int) -> dict[str, float]:
    stream = build_train_loader(cfg)
    batch = next(stream)
    if build_framework(cfg).partner_indices():
        # Any images cost what those cost that a framework asks for.
        batch["partners"] = next(stream)["unlabeled"]
    if part == "kinds":
        return compare_kinds(cfg, batch, steps)
    return compare_steps(cfg, batch, steps) | compare_overlap(cfg, batch, steps)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="path to config file")
    parser.add_argument(
        "--part", choices=("step", "kinds", "data"), default="step", help="what is measured (default: step)"
    )
    parser.add_argument("--steps", type=positive_int, default=10, help="measured steps, or samples, of each kind")
    parser.add_argument("--threads", type=positive_int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="pairs that override the config")
    return parse_args(parser)


if __name__ == "__main__":
    with clear_errors():
        main(_parse())
