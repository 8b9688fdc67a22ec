"""What a checkpoint says of itself: writing it down, and reading its config."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..config import get_cfg
from ..config.config import RENAMED, set_value
from ..data.datasets.folder import class_names_and_colors
from ..modeling.model_metadata import read_config
from ..utils.errors import InputError
from .classes import classes_of_run

logger = logging.getLogger(__name__)


def describe_run(cfg: Any) -> dict[str, Any]:
    """What a checkpoint says of itself, as plain data: its config, class names, colours and preprocessing.

    Args:
        cfg: complete; classes of a data set that other code registered without names or colours get some.

    Raises:
        InputError: the run's data sets have different classes.
    """
    data = classes_of_run(cfg).owner
    known = MetadataCatalog.get(data).as_dict() if data in MetadataCatalog else {}
    classes, colors = class_names_and_colors(known, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
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
        text: as `describe_run` dumped it, perhaps long ago: keys that are newer than it have their defaults, renamed
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
