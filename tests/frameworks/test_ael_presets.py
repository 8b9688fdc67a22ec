"""The presets say what is published, and the weighted ones differ from it by weighting and detector keys alone."""

import pytest
from presets import PRESETS, TWINS, UNLABELED, assert_holds, assert_twin, split_keys, steps_of_epoch

EPOCHS = {"voc": 80, "cityscapes": 200}
PUBLISHED = {
    "FRAMEWORK.NAME": "AEL",
    "FRAMEWORK.ALPHA": 1.0,
    "FRAMEWORK.BURN_IN": 0,
    "FRAMEWORK.EMA_DECAY": 0.99,
    "FRAMEWORK.EMA_BUFFERS": "none",
    "FRAMEWORK.AEL.MOMENTUM": 0.999,
    "FRAMEWORK.OHEM.ENABLED": True,
    "FRAMEWORK.OHEM.THRESHOLD": 0.7,
    "FRAMEWORK.OHEM.MIN_KEPT": 100_000,
    "INPUT.SCALE_RANGE": (0.5, 2.0),
    "INPUT.SCALE_BALANCED": True,
    "INPUT.RESIZE": "bilinear",
    "INPUT.STRONG.VIEWS": 0,
    "INPUT.PASTE.PROB": 0.5,
    "INPUT.PASTE.SCALE_RANGE": (0.1, 2.0),
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
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": [256],
    "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS": True,
    "MODEL.AUX_HEAD.ENABLED": True,
    "MODEL.AUX_HEAD.IN_FEATURE": "res4",
    "MODEL.AUX_HEAD.LOSS_WEIGHT": 0.4,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.UNLABELED_IMS_PER_BATCH": 8,
    "SOLVER.REFERENCE_IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.HEAD_LR_FACTOR": 10.0,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.POLY_LR_POWER": 0.9,
    "SOLVER.WARMUP_ITERS": 0,
    "WEIGHTING.NORM": "weight_sum",
}
OWN = {
    "voc": {
        "FRAMEWORK.THRESHOLD": 0.7,
        "FRAMEWORK.AEL.PASTE_CLASSES": 1,
        # Published: Cityscapes' ids here too, and so neither background nor aeroplane, bicycle, cat and cow.
        "FRAMEWORK.AEL.HEAD_CLASSES": (0,),
        "FRAMEWORK.AEL.PRESENCE_AREA": 0.03,
        "FRAMEWORK.AEL.COMPONENT_AREA": 0.03,
        "INPUT.CROP_SIZE": (513, 513),
        "TEST.INFERENCE.MODE": "crop",
        "TEST.INFERENCE.JUDGE_PADDING": False,
        "TEST.INFERENCE.CROP_SIZE": (513, 513),
        "RPPI.BOX_SCORE": 0.85,
    },
    "cityscapes": {
        "FRAMEWORK.THRESHOLD": 0.0,
        "FRAMEWORK.AEL.PASTE_CLASSES": 3,
        "FRAMEWORK.AEL.HEAD_CLASSES": (0, 1, 2, 8, 10),
        "FRAMEWORK.AEL.PRESENCE_AREA": 0.01,
        "FRAMEWORK.AEL.COMPONENT_AREA": 0.005,
        "INPUT.CROP_SIZE": (769, 769),
        "TEST.INFERENCE.MODE": "slide",
        "TEST.INFERENCE.CROP_SIZE": (769, 769),
        "TEST.INFERENCE.STRIDE": (513, 513),
        "TEST.INFERENCE.BORDER": "shift",
        "TEST.INFERENCE.AVERAGE": "probability",
        "RPPI.BOX_SCORE": 0.95,
    },
}


@pytest.mark.parametrize(("data", "split"), PRESETS)
def test_presets_are_the_published_recipe(data, split):
    epoch = steps_of_epoch(UNLABELED[data][split], 8, 2)
    expected = PUBLISHED | OWN[data]
    expected |= split_keys(data, split, EPOCHS[data], epoch)
    assert_holds(f"{data}/ael_{split}.yaml", expected)


@pytest.mark.parametrize(("data", "split", "suffix"), TWINS)
def test_twins_differ_by_weighting_and_detector_keys_alone(data, split, suffix):
    assert_twin(data, "ael", suffix, split)
