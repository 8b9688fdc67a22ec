"""What the tests of presets share: their published splits, and what two of them may differ in."""

from pathlib import Path

import yaml

from wpl_d2.config import load_cfg

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
UNLABELED = {
    "voc": {"92": 10490, "183": 10399, "366": 10216, "732": 9850, "1464": 9118}
    | {"u2pl_1_16": 9920, "u2pl_1_8": 9259, "u2pl_1_4": 7936},
    "cityscapes": {"1_30": 2875, "1_16": 2789, "1_8": 2603, "1_4": 2231, "1_2": 1487},
}
"""Unlabeled images of each split: what an epoch is."""

PRESETS = [(data, split) for data, splits in UNLABELED.items() for split in splits]
TWINS = [
    *((*preset, "wpl") for preset in PRESETS),
    *(("camvid", "1_30", suffix) for suffix in ("ppw", "wpl", "wpl_cached")),
]
"""Data, split and suffix of every weighted preset."""


def split_keys(data, split, epochs, epoch):
    """What the presets of a split hold in common: its lists, and `epochs` of `epoch` steps, judged after each."""
    return {
        "DATASETS.TRAIN": (f"{data}_{split}_labeled",),
        "DATASETS.UNLABELED": (f"{data}_{split}_unlabeled",),
        "SOLVER.MAX_ITER": epochs * epoch,
        "SOLVER.CHECKPOINT_PERIOD": epoch,
        "TEST.EVAL_PERIOD": epoch,
    }


def steps_of_epoch(images, gpus, batch):
    """Each process has its share of the images, rounded up, and drops an incomplete batch."""
    return -(-images // gpus) // batch


def assert_holds(path, expected):
    """The preset configs/PATH has these values under dotted keys."""
    cfg = load_cfg(str(CONFIGS / path))
    assert {key: _value(cfg, key) for key in expected} == expected


def differing_keys(*paths):
    """Dotted keys in which two presets differ."""
    first, second = (dict(_leaves(yaml.safe_load(load_cfg(str(CONFIGS / path)).dump()))) for path in paths)
    return {key for key in first if first[key] != second[key]}


def assert_twin(data, host, suffix, split):
    """A weighted preset (suffix ppw, wpl or wpl_cached) differs from its host's by weighting and detector alone."""
    detector = {
        "ppw": set(),
        "wpl": {"MODEL.DETECTOR.MODE", "RPPI.ENABLED"},
        "wpl_cached": {"MODEL.DETECTOR.MODE", "MODEL.DETECTOR.CACHE", "RPPI.ENABLED"},
    }
    twins = f"{data}/{host}_{split}.yaml", f"{data}/{host}_{suffix}_{split}.yaml"
    assert differing_keys(*twins) == {"OUTPUT_DIR", "WEIGHTING.ENABLED"} | detector[suffix]


def _value(cfg, key):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _leaves(node, prefix=""):
    """All keys of a plain config with their values."""
    for key, inner in node.items():
        if isinstance(inner, dict):
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield prefix + key, inner
