"""Train or evaluate, with the flags of Detectron2's training scripts."""

from __future__ import annotations

import argparse
import os


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of Detectron2's `default_argument_parser`, which cannot be asked without importing torch."""
    parser.add_argument("--config-file", default="", metavar="FILE", help="a config, such as configs/quickstart.yaml")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of OUTPUT_DIR")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS")
    add_process_arguments(parser)
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", default=None, help="pairs that override the config"
    )


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """Add those of Detectron2's arguments that say on how many GPUs and machines to run."""
    parser.add_argument("--num-gpus", type=int, default=1, help="processes on this machine, without a GPU on its CPU")
    parser.add_argument("--num-machines", type=int, default=1, help="machines (default: 1)")
    parser.add_argument("--machine-rank", type=int, default=0, help="the number of this machine, from 0")
    # Detectron2's: another port for each user of a machine.
    port = 2**15 + 2**14 + hash(os.getuid()) % 2**14
    url = f"tcp://127.0.0.1:{port}"
    parser.add_argument("--dist-url", default=url, help="tcp://HOST:PORT of machine 0, where there are several")


def main(args: argparse.Namespace) -> None:
    """Train, or evaluate with --eval-only."""
    from ..engine import check_run, launch

    launch(train_or_evaluate, args, check_run)


def train_or_evaluate(args: argparse.Namespace) -> None:
    """Do it in one process of the run; `args` as `check_run` accepted them."""
    import logging

    from ..checkpoint import load_framework
    from ..config.config import fitted_settings
    from ..engine import Trainer, make_plan, report_results, save_run_info, setup, train_earlier_phases
    from ..evaluation.evaluator import evaluate
    from ..report import report_training

    cfg = setup(args)
    if args.eval_only:
        report_results(cfg, evaluate(cfg, load_framework(cfg, args.resume)))
        return
    plan = make_plan(cfg)
    train_earlier_phases(plan, args.resume)
    cfg = plan.last
    trainer = Trainer(cfg)
    trainer.resume_or_load(args.resume)
    save_run_info(cfg, fitted_settings(args.config_file, args.opts))
    logging.getLogger("wpl_d2").info("Training from iteration %d to %d", trainer.start_iter, trainer.max_iter)
    results = trainer.train()
    report_training(cfg, trainer.framework)
    report_results(cfg, results, trainer.framework)
