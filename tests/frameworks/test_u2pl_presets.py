"""The presets say what is published, and the weighted ones differ from it by weighting and detector keys alone."""

import pytest
from presets import PRESETS, TWINS, UNLABELED, assert_holds, assert_twin, split_keys, steps_of_epoch

EPOCHS = {"voc": 80, "cityscapes": 200}
PROCESSES = {"voc": (4, 4), "cityscapes": (8, 2)}
"""GPUs, and labeled images on each."""
PUBLISHED = {
    "FRAMEWORK.NAME": "U2PL",
    "FRAMEWORK.ALPHA": 1.0,
    "FRAMEWORK.CUTMIX.PROB": 0.5,
    "FRAMEWORK.EMA_DECAY": 0.99,
    "FRAMEWORK.EMA_BUFFERS": "none",
    "FRAMEWORK.U2PL.UNRELIABLE": 20.0,
    "FRAMEWORK.U2PL.CONTRAST_WEIGHT": 1.0,
    "FRAMEWORK.U2PL.TEMPERATURE": 0.5,
    "FRAMEWORK.U2PL.ANCHORS": 256,
    "FRAMEWORK.U2PL.NEGATIVES": 50,
    "FRAMEWORK.U2PL.ANCHOR_PROB": 0.3,
    "FRAMEWORK.U2PL.NEGATIVE_RANKS": (3, 20),
    "FRAMEWORK.U2PL.QUEUE_SIZE": 30_000,
    "FRAMEWORK.U2PL.QUEUE_SIZE_FIRST": 50_000,
    "INPUT.SCALE_RANGE": (0.5, 2.0),
    "INPUT.SCALE_BALANCED": True,
    "INPUT.RESIZE": "bilinear",
    "INPUT.STRONG.VIEWS": 1,
    "INPUT.STRONG.JITTER_PROB": 0.0,
    "INPUT.STRONG.GRAY_PROB": 0.0,
    "INPUT.STRONG.BLUR_PROB": 0.0,
    "MODEL.RESNETS.DEPTH": 101,
    "MODEL.RESNETS.STEM_TYPE": "deeplab_ceil",
    "MODEL.RESNETS.RES5_BLOCK_DILATIONS": (4, 8, 16),
    "MODEL.BACKBONE.OUTPUT_STRIDE": 8,
    "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": [12, 24, 36],
    "MODEL.SEM_SEG_HEAD.ASPP_DROPOUT": 0.0,
    "MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM": True,
    "MODEL.SEM_SEG_HEAD.ASPP_FUSE_KERNEL": 3,
    "MODEL.SEM_SEG_HEAD.BIASED_CONVS": ("project", "fuse"),
    "MODEL.SEM_SEG_HEAD.DECODER_DROPOUT": 0.1,
    "MODEL.SEM_SEG_HEAD.INIT": "pytorch",
    "MODEL.SEM_SEG_HEAD.REPRESENTATION_DIM": 256,
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": [256],
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
        "FRAMEWORK.OHEM.ENABLED": False,
        "INPUT.CROP_SIZE": (513, 513),
        "MODEL.AUX_HEAD.ENABLED": False,
        "SOLVER.BASE_LR": 0.001,
        "SOLVER.HEAD_LR_FACTOR": 10.0,
        "SOLVER.WEIGHT_DECAY": 1e-4,
        "TEST.INFERENCE.MODE": "crop",
        "TEST.INFERENCE.JUDGE_PADDING": False,
        "TEST.INFERENCE.CROP_SIZE": (513, 513),
        "RPPI.BOX_SCORE": 0.85,
    },
    "cityscapes": {
        "FRAMEWORK.OHEM.ENABLED": True,
        "FRAMEWORK.OHEM.THRESHOLD": 0.7,
        "FRAMEWORK.OHEM.MIN_KEPT": 100_000,
        "INPUT.CROP_SIZE": (769, 769),
        "MODEL.AUX_HEAD.ENABLED": True,
        "MODEL.AUX_HEAD.IN_FEATURE": "res4",
        "MODEL.AUX_HEAD.LOSS_WEIGHT": 0.4,
        "SOLVER.BASE_LR": 0.01,
        "SOLVER.HEAD_LR_FACTOR": 1.0,
        "SOLVER.WEIGHT_DECAY": 5e-4,
        "TEST.INFERENCE.MODE": "slide",
        "TEST.INFERENCE.CROP_SIZE": (769, 769),
        "TEST.INFERENCE.STRIDE": (513, 513),
        "TEST.INFERENCE.BORDER": "shift",
        "TEST.INFERENCE.AVERAGE": "logit",
        "RPPI.BOX_SCORE": 0.95,
    },
}


@pytest.mark.parametrize(("data", "split"), PRESETS)
def test_presets_are_the_published_recipe(data, split):
    gpus, images = PROCESSES[data]
    epoch = steps_of_epoch(UNLABELED[data][split], gpus, images)
    assert_holds(
        f"{data}/u2pl_{split}.yaml",
        PUBLISHED
        | OWN[data]
        | split_keys(data, split, EPOCHS[data], epoch)
        | {"FRAMEWORK.BURN_IN": epoch if data == "voc" else 0, "FRAMEWORK.EMA_COPY_STEPS": epoch},
    )


@pytest.mark.parametrize(("data", "split", "suffix"), TWINS)
def test_twins_differ_by_weighting_and_detector_keys_alone(data, split, suffix):
    assert_twin(data, "u2pl", suffix, split)
