"""Trainings to report on, and the rows of their metrics.json."""

import json

import torch
from helpers import SMALL

from wpl_d2.engine import Trainer, save_run_info
from wpl_d2.report import report_training

SHORT = ["SOLVER.MAX_ITER", 4, "TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 0, "SOLVER.BASE_LR", 0.01]
SUPERVISED = ["FRAMEWORK.NAME", "Supervised", "DATASETS.UNLABELED", (), "WEIGHTING.ENABLED", False]


def train(tree, folder, *opts):
    """A training as the command does it, and its report."""
    cfg = tree.cfg(*SMALL, *SHORT, *opts, "OUTPUT_DIR", str(folder))
    cfg.freeze()
    torch.manual_seed(cfg.SEED)
    trainer = Trainer(cfg)
    trainer.resume_or_load(False)
    save_run_info(cfg)
    trainer.train()
    report_training(cfg, trainer.framework)
    return folder


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def write_rows(folder, rows):
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
