"""The presets' models have as many parameters as the published ones, with VOC's 21 classes."""

from pathlib import Path

import pytest
import torch

from wpl_d2 import build_model
from wpl_d2.config import load_cfg

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
AUX_HEAD = 1024 * 256 * 9 + 256 + 2 * 256 + 256 * 21 + 21

# Of the network that is evaluated, with U2PL's representation; AEL has the auxiliary head besides.
COUNTS = [
    ("voc/unimatch.yaml", 50, 40_475_957),
    ("voc/unimatch.yaml", 101, 59_468_085),
    ("voc/mean_teacher.yaml", 50, 40_475_957),
    ("voc/augseg.yaml", 50, 40_476_005),
    ("voc/augseg.yaml", 101, 59_468_133),
    ("voc/u2pl.yaml", 50, 45_467_861),
    ("voc/u2pl.yaml", 101, 64_459_989),
    ("voc/ael.yaml", 50, 43_631_061 + AUX_HEAD),
    ("voc/ael.yaml", 101, 62_623_189 + AUX_HEAD),
    ("coco/unimatch.yaml", None, 54_711_461),  # Xception-65
]


@pytest.mark.parametrize(("preset", "depth", "count"), COUNTS)
def test_parameter_count(preset, depth, count):
    resnet = ["MODEL.RESNETS.DEPTH", depth] if depth else []
    cfg = load_cfg(str(CONFIGS / preset), ["MODEL.DEVICE", "meta", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 21, *resnet])
    with torch.device("meta"):
        model = build_model(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
