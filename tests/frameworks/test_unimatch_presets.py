"""The presets say what is published, and the weighted ones differ from it by weighting and detector keys alone."""

import pytest
from presets import CONFIGS, PRESETS, TWINS, UNLABELED, assert_holds, assert_twin, split_keys, steps_of_epoch

from wpl_d2.config import load_cfg

# UniMatch alone is published on COCO.
COCO = {
    split: 118287 - labeled
    for split, labeled in zip(("1_512", "1_256", "1_128", "1_64", "1_32"), (232, 463, 925, 1849, 3697), strict=True)
}
UNLABELED = {**UNLABELED, "coco": COCO}
PRESETS = [*PRESETS, *(("coco", split) for split in COCO)]
TWINS = [*TWINS, *(("coco", split, "wpl") for split in COCO)]
EPOCHS = {"voc": 80, "cityscapes": 240, "coco": 30}
PUBLISHED = {
    "FRAMEWORK.NAME": "UniMatch",
    "FRAMEWORK.ALPHA": 1.0,
    "FRAMEWORK.BURN_IN": 0,
    "FRAMEWORK.FEATURE_DROPOUT": 0.5,
    "FRAMEWORK.CUTMIX.PROB": 0.5,
    "FRAMEWORK.CUTMIX.AREA": (0.02, 0.4),
    "INPUT.SCALE_RANGE": (0.5, 2.0),
    "INPUT.SCALE_BALANCED": False,
    "INPUT.RESIZE": "antialias",
    "INPUT.STRONG.VIEWS": 2,
    "INPUT.STRONG.JITTER": (0.5, 0.5, 0.5, 0.25),
    "MODEL.BACKBONE.OUTPUT_STRIDE": 16,
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": [6, 12, 18],
    "MODEL.SEM_SEG_HEAD.ASPP_DROPOUT": 0.0,
    "MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM": True,
    "MODEL.SEM_SEG_HEAD.ASPP_FUSE_KERNEL": 1,
    "MODEL.SEM_SEG_HEAD.BIASED_CONVS": (),
    "MODEL.SEM_SEG_HEAD.DECODER_DROPOUT": 0.0,
    "MODEL.SEM_SEG_HEAD.INIT": "pytorch",
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": [48],
    "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS": True,
    "SOLVER.IMS_PER_BATCH": 8,
    "SOLVER.UNLABELED_IMS_PER_BATCH": 8,
    "SOLVER.REFERENCE_IMS_PER_BATCH": 8,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.POLY_LR_POWER": 0.9,
    "SOLVER.WARMUP_ITERS": 0,
}
RESNET = {
    "MODEL.BACKBONE.NAME": "build_unified_resnet_backbone",
    "MODEL.WEIGHTS": "detectron2://DeepLab/R-103.pkl",
    "MODEL.RESNETS.DEPTH": 101,
    "MODEL.RESNETS.STEM_TYPE": "deeplab",
    "MODEL.RESNETS.RES5_BLOCK_DILATIONS": (1, 2, 2),
}
OWN = {
    "voc": RESNET
    | {
        "FRAMEWORK.THRESHOLD": 0.95,
        "FRAMEWORK.OHEM.ENABLED": False,
        "INPUT.CROP_SIZE": (321, 321),
        "SOLVER.BASE_LR": 0.001,
        "SOLVER.HEAD_LR_FACTOR": 10.0,
        "TEST.INFERENCE.MODE": "whole",
        "RPPI.BOX_SCORE": 0.85,
    },
    "cityscapes": RESNET
    | {
        "FRAMEWORK.THRESHOLD": 0.0,
        "FRAMEWORK.OHEM.ENABLED": True,
        "FRAMEWORK.OHEM.THRESHOLD": 0.7,
        "FRAMEWORK.OHEM.MIN_KEPT": 200_000,
        "INPUT.CROP_SIZE": (801, 801),
        "SOLVER.BASE_LR": 0.005,
        "SOLVER.HEAD_LR_FACTOR": 1.0,
        "TEST.INFERENCE.MODE": "slide",
        "TEST.INFERENCE.CROP_SIZE": (801, 801),
        "TEST.INFERENCE.STRIDE": (534, 534),
        "TEST.INFERENCE.BORDER": "truncate",
        "TEST.INFERENCE.AVERAGE": "probability",
        "RPPI.BOX_SCORE": 0.95,
    },
    "coco": {
        "MODEL.BACKBONE.NAME": "build_xception_backbone",
        "MODEL.TIMM.NAME": "xception65",
        "MODEL.TIMM.BN_MOMENTUM": 3e-4,
        "MODEL.TIMM.BN_EPS": 1e-5,
        "MODEL.XCEPTION.RECTIFIED_SHORTCUTS": True,
        "MODEL.WEIGHTS": "timm://xception65.tf_in1k",
        "FRAMEWORK.THRESHOLD": 0.95,
        "FRAMEWORK.OHEM.ENABLED": False,
        "INPUT.CROP_SIZE": (513, 513),
        "SOLVER.BASE_LR": 0.004,
        "SOLVER.HEAD_LR_FACTOR": 10.0,
        "TEST.INFERENCE.MODE": "whole",
        # Not published.
        "RPPI.BOX_SCORE": 0.85,
    },
}


@pytest.mark.parametrize(("data", "split"), PRESETS)
def test_presets_are_the_published_recipe(data, split):
    epoch = steps_of_epoch(UNLABELED[data][split], 4, 2)
    expected = PUBLISHED | OWN[data]
    expected |= split_keys(data, split, EPOCHS[data], epoch)
    if split.startswith("u2pl"):
        expected["INPUT.CROP_SIZE"] = (513, 513)
    assert_holds(f"{data}/unimatch_{split}.yaml", expected)


@pytest.mark.parametrize(("data", "split", "suffix"), TWINS)
def test_twins_differ_by_weighting_and_detector_keys_alone(data, split, suffix):
    assert_twin(data, "unimatch", suffix, split)


def test_the_readmes_command_is_the_weighted_preset_of_92_labels():
    ours, preset = (load_cfg(str(CONFIGS / name)) for name in ("voc_1_16.yaml", "voc/unimatch_wpl_92.yaml"))
    ours.OUTPUT_DIR = preset.OUTPUT_DIR
    assert ours == preset
