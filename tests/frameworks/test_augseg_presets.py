"""The presets say what is published, and the weighted ones differ from it by weighting and detector keys alone."""

import pytest
from presets import PRESETS, TWINS, UNLABELED, assert_holds, assert_twin, split_keys, steps_of_epoch

PUBLISHED = {
    "FRAMEWORK.NAME": "AugSeg",
    "FRAMEWORK.ALPHA": 1.0,
    "FRAMEWORK.BURN_IN": 0,
    "FRAMEWORK.EMA_BUFFERS": "ema",
    "FRAMEWORK.AUGSEG.INJECTION": True,
    "INPUT.SCALE_RANGE": (0.5, 2.0),
    "INPUT.SCALE_BALANCED": False,
    "INPUT.RESIZE": "antialias",
    "INPUT.STRONG.KIND": "intensity",
    "INPUT.STRONG.MAX_OPERATIONS": 3,
    "INPUT.STRONG.BLUR_SIGMA": (0.1, 2.0),
    "INPUT.STRONG.VIEWS": 1,
    "MODEL.WEIGHTS": "detectron2://DeepLab/R-103.pkl",
    "MODEL.RESNETS.DEPTH": 101,
    "MODEL.RESNETS.STEM_TYPE": "deeplab_ceil",
    "MODEL.RESNETS.RES5_BLOCK_DILATIONS": (2, 4, 8),
    "MODEL.BACKBONE.OUTPUT_STRIDE": 16,
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.AUX_HEAD.ENABLED": False,
    "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": [6, 12, 18],
    "MODEL.SEM_SEG_HEAD.ASPP_DROPOUT": 0.0,
    "MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM": True,
    "MODEL.SEM_SEG_HEAD.ASPP_FUSE_KERNEL": 1,
    "MODEL.SEM_SEG_HEAD.BIASED_CONVS": ("project",),
    "MODEL.SEM_SEG_HEAD.DECODER_DROPOUT": 0.0,
    "MODEL.SEM_SEG_HEAD.INIT": "pytorch",
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": [48],
    "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS": True,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.UNLABELED_IMS_PER_BATCH": 16,
    "SOLVER.REFERENCE_IMS_PER_BATCH": 16,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.POLY_LR_POWER": 0.9,
    "SOLVER.WARMUP_ITERS": 0,
}
OWN = {
    "voc": {
        "FRAMEWORK.THRESHOLD": 0.95,
        "FRAMEWORK.EMA_DECAY": 0.999,
        "FRAMEWORK.OHEM.ENABLED": False,
        "INPUT.CROP_SIZE": (513, 513),
        "INPUT.SCALE_BASE": 500,
        "SOLVER.BASE_LR": 0.001,
        "SOLVER.HEAD_LR_FACTOR": 10.0,
        "SOLVER.WEIGHT_DECAY": 1e-4,
        "TEST.INFERENCE.MODE": "whole",
        "RPPI.BOX_SCORE": 0.85,
    },
    "cityscapes": {
        "FRAMEWORK.THRESHOLD": 0.0,
        "FRAMEWORK.EMA_DECAY": 0.996,
        "FRAMEWORK.OHEM.ENABLED": True,
        "FRAMEWORK.OHEM.THRESHOLD": 0.7,
        "FRAMEWORK.OHEM.MIN_KEPT": 100_000,
        "INPUT.CROP_SIZE": (800, 800),
        "INPUT.SCALE_BASE": 0,
        "SOLVER.BASE_LR": 0.01,
        "SOLVER.HEAD_LR_FACTOR": 1.0,
        "SOLVER.WEIGHT_DECAY": 5e-4,
        "TEST.INFERENCE.MODE": "slide",
        "TEST.INFERENCE.CROP_SIZE": (800, 800),
        "TEST.INFERENCE.STRIDE": (533, 533),
        "TEST.INFERENCE.BORDER": "truncate",
        "TEST.INFERENCE.AVERAGE": "probability",
        "RPPI.BOX_SCORE": 0.95,
    },
}
# GPUs, images of each, epochs.
SCHEDULE = {"voc": (2, 8, 80), "cityscapes": (4, 4, 240)}


@pytest.mark.parametrize(("data", "split"), PRESETS)
def test_presets_are_the_published_recipe(data, split):
    gpus, images, epochs = SCHEDULE[data]
    epoch = steps_of_epoch(UNLABELED[data][split], gpus, images)
    expected = PUBLISHED | OWN[data]
    expected |= split_keys(data, split, epochs, epoch)
    # The teacher is a copy through the first epoch.
    expected["FRAMEWORK.EMA_COPY_STEPS"] = epoch
    assert_holds(f"{data}/augseg_{split}.yaml", expected)


def test_an_epoch_is_as_long_as_in_the_published_logs():
    for path, steps in (("voc/augseg_1464.yaml", 569), ("cityscapes/augseg_1_16.yaml", 174)):
        assert_holds(path, {"TEST.EVAL_PERIOD": steps})


@pytest.mark.parametrize(("data", "split", "suffix"), TWINS)
def test_twins_differ_by_weighting_and_detector_keys_alone(data, split, suffix):
    assert_twin(data, "augseg", suffix, split)
