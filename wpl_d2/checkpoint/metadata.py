"""Building a checkpoint's metadata (see `wpl_d2.modeling.model_metadata`), and restoring the config from it."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..config import get_cfg
from ..config.config import RENAMED, set_value
from ..data.datasets.folder import class_looks
from ..modeling.model_metadata import read_config
from ..utils.errors import InputError
from .classes import get_run_classes

logger = logging.getLogger(__name__)


def build_metadata(cfg: Any) -> dict[str, Any]:
    """Build the metadata of a run's checkpoints.

    Args:
        cfg: a complete config; classes that a data set registers without names or colours get default ones.

    Raises:
        InputError: the run's data sets have different classes.
    """
    data = get_run_classes(cfg).owner
    known = MetadataCatalog.get(data).as_dict() if data in MetadataCatalog else {}
    classes, colors = class_looks(known, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    return {
        "config": cfg.dump(),
        "classes": classes,
        "colors": [list(color) for color in colors],
        "objects": list(cfg.MODEL.DETECTOR.CLASSES),
        "preprocessing": {
            "format": cfg.INPUT.FORMAT,
            "mean": list(cfg.MODEL.PIXEL_MEAN),
            "std": list(cfg.MODEL.PIXEL_STD),
        },
    }


def restore_cfg(text: str, source: str = "the model") -> CfgNode:
    """The config in what a checkpoint or an exported file says of itself.

    Args:
        text: as `build_metadata` dumped it, perhaps long ago: keys that are newer than it have their defaults, renamed
            ones their new names, and those that are no more are left out.
        source: its file, for the message.

    Raises:
        InputError: it is no config.
    """
    cfg = get_cfg()
    try:
        _merge_known(cfg, read_config(text, source), cfg)
    except (AssertionError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source}: its config does not fit ({error}); give a file of this project's") from error
    return cfg


def _merge_known(node: CfgNode, old: CfgNode, cfg: CfgNode, prefix: str = "") -> None:
    for key, value in old.items():
        if isinstance(value, CfgNode) and isinstance(node.get(key), CfgNode):
            _merge_known(node[key], value, cfg, f"{prefix}{key}.")
        elif key in node:
            node.merge_from_other_cfg(CfgNode({key: value}))
        elif f"{prefix}{key}" in RENAMED:
            set_value(cfg, RENAMED[f"{prefix}{key}"], value, "the model's config")
        else:
            logger.info("The key %s%s of the training is no more", prefix, key)
