"""Building a checkpoint's metadata (see `wpl_d2.modeling.model_metadata`), and restoring the config from it."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..config import get_cfg
from ..config.config import leaf_keys, set_value, translate
from ..config.layers import flatten
from ..data.datasets.folder import class_names_and_colors
from ..modeling.model_metadata import read_config
from .classes import get_run_classes

logger = logging.getLogger(__name__)


def build_metadata(cfg: Any) -> dict[str, Any]:
    """Build the metadata of a run's checkpoints.

    Args:
        cfg: a complete config; classes that a data set registers without names or colors get default ones.

    Raises:
        InputError: the run's data sets have different classes.
    """
    data = get_run_classes(cfg).owner
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
            "channels": list(cfg.INPUT.CHANNELS),
            "value_range": [list(pair) for pair in cfg.INPUT.VALUE_RANGE],
        },
    }


def restore_cfg(text: str, source: str = "the model") -> CfgNode:
    """The config in what a checkpoint or an exported file says of itself.

    Args:
        text: as `build_metadata` dumped it, perhaps by a former version. Keys that it lacks have their defaults,
            renamed ones are translated, and a warning names those that this version does not know.
        source: its file, for messages.

    Raises:
        InputError: it is not a config.
    """
    cfg, unknown = get_cfg(), []
    known = set(leaf_keys(cfg))
    for old_key, old_value in flatten(read_config(text, source)):
        key, value = translate(old_key, old_value)
        if key in known:
            set_value(cfg, key, value, f"{source}: its config")
        else:
            unknown.append(f"{key} ({value!r})")
    if unknown:
        logger.warning("%s: its config has keys that this version does not know: %s", source, ", ".join(unknown))
    return cfg
