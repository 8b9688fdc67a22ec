#!/usr/bin/env python
"""Train or evaluate: `tools/train_net.py --config-file configs/quickstart.yaml [--num-gpus N] [KEY VALUE ...]`."""

import argparse
import logging

from detectron2.engine import default_argument_parser

from wpl_d2.checkpoint import load_framework
from wpl_d2.engine import Trainer, check_run, launch, report_results, save_run_info, setup
from wpl_d2.evaluation.evaluator import evaluate
from wpl_d2.utils.command_line import parse_args


def main(args: argparse.Namespace) -> None:
    cfg = setup(args)
    if args.eval_only:
        report_results(cfg, evaluate(cfg, load_framework(cfg, args.resume)))
        return
    trainer = Trainer(cfg)
    trainer.resume_or_load(args.resume)
    save_run_info(cfg)
    logging.getLogger("wpl_d2").info("Training from iteration %d to %d", trainer.start_iter, trainer.max_iter)
    report_results(cfg, trainer.train(), trainer.framework)


if __name__ == "__main__":
    launch(main, parse_args(default_argument_parser()), check_run)
