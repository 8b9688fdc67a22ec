"""From command line arguments to a complete config."""

from __future__ import annotations

import argparse
import logging
from typing import Any

import torch
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..config import load_cfg
from ..data import check_training_data, setup_datasets


def setup(args: argparse.Namespace) -> Any:
    """The frozen config of a run: file and overrides read, data registered (and checked, to train), log begun.

    Args:
        args: of Detectron2's `default_argument_parser`.

    Raises:
        InputError: on anything wrong in the config or the data.
    """
    cfg = load_cfg(args.config_file, args.opts)
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    if cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed() % 2**31
    setup_datasets(cfg)
    cfg.freeze()
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="wpl_d2")
    if not args.eval_only:
        check_training_data(cfg)
    logging.getLogger(__name__).info("Device: %s, processes: %d", cfg.MODEL.DEVICE, comm.get_world_size())
    return cfg
