import pytest
import torch

import wpl_d2


@pytest.fixture
def make_cfg():
    """Configs of small models: timm's resnet18 unless told, five classes."""

    def make(*opts):
        torch.manual_seed(0)
        cfg = wpl_d2.get_cfg()
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 5
        cfg.MODEL.BACKBONE.NAME = "build_timm_backbone"
        cfg.merge_from_list(list(opts))
        return cfg

    return make


@pytest.fixture
def shared_detector():
    """Options that add a small detector of the semantic classes 2 and 4."""
    return [
        *("MODEL.DETECTOR.MODE", "shared", "MODEL.DETECTOR.CLASSES", (2, 4), "MODEL.DETECTOR.CHANNELS", 32),
        *("MODEL.ROI_BOX_HEAD.FC_DIM", 64, "MODEL.ANCHOR_GENERATOR.SIZES", [[16, 32, 64]]),
    ]
