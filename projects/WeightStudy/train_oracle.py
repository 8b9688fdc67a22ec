#!/usr/bin/env python
"""Train an oracle, a host that is told the truth about unlabeled images: to measure what weights or labels could gain.

train_oracle.py --config-file CONFIG [--num-gpus N] [--resume] FRAMEWORK.NAME OracleWeightsMeanTeacher [KEY VALUE ...]

Its checkpoints are evaluated as those of the host: tools/train_net.py --eval-only with the host's FRAMEWORK.NAME.
"""

import argparse

from detectron2.engine import default_argument_parser
from wpl_study.oracle import OracleTrainer, register_oracles

from wpl_d2.engine import check_run, launch, report_results, save_run_info, setup
from wpl_d2.utils.command_line import parse_args
from wpl_d2.utils.errors import InputError, check_name


def main(args: argparse.Namespace) -> None:
    """Train in one process of the run."""
    oracles = register_oracles()
    cfg = setup(args)
    check_name("FRAMEWORK.NAME", cfg.FRAMEWORK.NAME, oracles)
    trainer = OracleTrainer(cfg)
    trainer.resume_or_load(args.resume)
    save_run_info(cfg)
    report_results(cfg, trainer.train(), trainer.framework)


def check(args: argparse.Namespace) -> None:
    """Find what is wrong before processes start."""
    if args.eval_only:
        raise InputError("--eval-only: an oracle only trains; use tools/train_net.py and the host's FRAMEWORK.NAME")
    register_oracles()
    check_run(args)


if __name__ == "__main__":
    launch(main, parse_args(default_argument_parser(__doc__)), check)
