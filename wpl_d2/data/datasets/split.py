"""The lists of DATASETS.SPLIT, or of their usual names."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode as CN

from ...config.layers import Layer, layer_of
from ...utils.errors import InputError, suggest
from .folder import SPLIT, Description, load_description

_USUAL = {"TRAIN": "labeled", "UNLABELED": "unlabeled", "TEST": "val"}


def choose_lists(cfg: CN, layers: Sequence[Layer]) -> None:
    """Put the lists of DATASETS.SPLIT, or those of the usual names, into `cfg`, in place; see the keys' texts.

    Args:
        cfg: with the values of all layers, not frozen. The split's name is put into its paths, too.
        layers: of `read_layers`.

    Raises:
        InputError: the data set has no such split.
    """
    data, split = cfg.DATASETS, cfg.DATASETS.SPLIT
    if not split:
        _choose_usual(data, layers)
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


def _choose_usual(data: CN, layers: Sequence[Layer]) -> None:
    """Replace lists that were named before the description was, which are another data set's, or never."""
    described = layer_of(layers, "DATASETS.DESCRIPTION")
    if not data.DESCRIPTION or layer_of(layers, "DATASETS.TRAIN") >= described:
        return
    description = load_description(data.DESCRIPTION)
    if "labeled" not in description.lists:
        return
    for key, name in _USUAL.items():
        index = layer_of(layers, f"DATASETS.{key}")
        # A list that was set to () is one that the method does not use.
        if index < described and (index < 0 or data[key]):
            data[key] = (f"{description.name}_{name}",) if name in description.lists else ()


def _check_list(description: Description, name: str, split: str) -> None:
    if name not in description.lists:
        splits = [known.removesuffix("_labeled") for known in description.lists if known.endswith("_labeled")]
        mend = suggest(split, splits) if splits else "name lists in DATASETS.TRAIN and DATASETS.UNLABELED"
        raise InputError(f"DATASETS.SPLIT: {description.path} has no list {name!r}; {mend}")
