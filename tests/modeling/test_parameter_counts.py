"""The presets' models have as many parameters as UniMatch's authors count for theirs, with VOC's 21 classes."""

from pathlib import Path

import pytest
import torch

from wpl_d2 import build_model
from wpl_d2.config import load_cfg

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize(
    ("preset", "opts", "millions"),
    [
        ("voc/unimatch_92.yaml", [], 59.5),
        ("voc/unimatch_92.yaml", ["MODEL.RESNETS.DEPTH", 50], 40.5),
        ("coco/unimatch_1_512.yaml", [], 54.7),
    ],
)
def test_parameter_count(preset, opts, millions):
    cfg = load_cfg(str(CONFIGS / preset), [*opts, "MODEL.DEVICE", "meta", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 21])
    with torch.device("meta"):
        model = build_model(cfg)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == millions
