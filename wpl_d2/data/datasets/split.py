"""The lists of DATASETS.SPLIT."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode as CN

from ...config.layers import Layer, layer_of
from ...utils.errors import InputError, suggest
from .folder import SPLIT, Description, load_description


def choose_split(cfg: CN, layers: Sequence[Layer]) -> None:
    """Put the lists of DATASETS.SPLIT into `cfg`, in place, and the split's name into its paths; see the key's text.

    Args:
        cfg: with the values of all layers, not frozen.
        layers: of `read_layers`.

    Raises:
        InputError: the data set has no such split.
    """
    data, split = cfg.DATASETS, cfg.DATASETS.SPLIT
    if not split:
        return
    chosen, train, unlabeled = (layer_of(layers, f"DATASETS.{key}") for key in ("SPLIT", "TRAIN", "UNLABELED"))
    open_lists = {"TRAIN": f"{split}_labeled"} if train < chosen else {}
    # An UNLABELED that was set to () is of a method that learns from labels alone.
    if unlabeled < chosen and (unlabeled < 0 or data.UNLABELED):
        open_lists["UNLABELED"] = f"{split}_unlabeled"
    if open_lists:
        description = load_description(data.DESCRIPTION)
        for key, name in open_lists.items():
            _check_list(description, name, split)
            data[key] = (f"{description.name}_{name}",)
    cfg.OUTPUT_DIR = cfg.OUTPUT_DIR.replace(SPLIT, split)
    cfg.MODEL.DETECTOR.CACHE = cfg.MODEL.DETECTOR.CACHE.replace(SPLIT, split)
    data.SPLIT = ""


def _check_list(description: Description, name: str, split: str) -> None:
    if name not in description.lists:
        splits = [known.removesuffix("_labeled") for known in description.lists if known.endswith("_labeled")]
        mend = suggest(split, splits) if splits else "name lists in DATASETS.TRAIN and DATASETS.UNLABELED"
        raise InputError(f"DATASETS.SPLIT: {description.path} has no list {name!r}; {mend}")
