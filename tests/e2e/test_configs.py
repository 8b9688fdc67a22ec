"""Every preset builds, and a config differs from its plain twin by weighting and detector keys alone."""

from pathlib import Path

import pytest
import torch
import yaml

from wpl_d2.config import load_cfg
from wpl_d2.data import load_description
from wpl_d2.frameworks import build_framework

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PRESETS = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name not in ("_base_", "datasets"))


def complete(path):
    """The config, with what the description of its data set says, the data itself not being there."""
    cfg = load_cfg(str(path))
    description = load_description(cfg.DATASETS.DESCRIPTION)
    lists = {f"{description.name}_{name}" for name in description.lists}
    assert {*cfg.DATASETS.TRAIN, *cfg.DATASETS.UNLABELED, *cfg.DATASETS.TEST} <= lists
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(description.classes)
    cfg.MODEL.DETECTOR.CLASSES = description.object_ids
    cfg.MODEL.DEVICE = "meta"  # shapes without numbers: nothing is drawn or stored
    cfg.DATASETS.UNLABELED = ()  # what AEL remembers of each image is left out too
    return cfg


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_preset_builds(path):
    with torch.device("meta"):
        framework = build_framework(complete(path))
    assert type(framework).__name__ == load_cfg(str(path)).FRAMEWORK.NAME


@pytest.mark.parametrize(
    ("split", "suffix"),
    [*((split, suffix) for split in ("1_30", "1_8") for suffix in ("ppw", "wpl")), ("1_30", "wpl_cached")],
)
def test_twins_differ_by_weighting_and_detector_alone(split, suffix):
    plain, weighted = (
        yaml.safe_load(load_cfg(str(CONFIGS / "camvid" / f"{name}_{split}.yaml")).dump())
        for name in ("mean_teacher", f"mean_teacher_{suffix}")
    )
    differing = {
        f"{key}.{inner}" if isinstance(plain[key], dict) else key
        for key in plain
        for inner in (plain[key] if isinstance(plain[key], dict) else [""])
        if (plain[key][inner] != weighted[key][inner] if inner else plain[key] != weighted[key])
    }
    allowed = {"OUTPUT_DIR", "WEIGHTING.ENABLED", "RPPI.ENABLED", "MODEL.DETECTOR"}
    assert "WEIGHTING.ENABLED" in differing
    assert differing <= allowed
