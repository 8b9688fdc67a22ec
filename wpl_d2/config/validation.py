"""Which values the keys of a config can have, and which of Detectron2's keys do nothing here: two tables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

from detectron2.config import CfgNode

from ..utils.errors import InputError, check_name
from .layers import IN_EPOCHS, value_of

_GROUPS = 32  # of Detectron2's GN
_SCHEDULERS = ("WarmupPolyLR", "WarmupCosineLR", "WarmupMultiStepLR", "WarmupStepWithFixedGammaLR")
_CLIP_TYPES = ("value", "norm")


def _numbers(value: Any, count: int) -> bool:
    return len(value) == count and all(type(number) in (int, float) for number in value)


def _share(value: float) -> bool:
    return 0 <= value <= 1


def _positive(value: float) -> bool:
    return value > 0


def _not_negative(value: float) -> bool:
    return value >= 0


def _odd(value: int) -> bool:
    return value > 0 and value % 2 == 1


def _size(value: Any) -> bool:
    return len(value) == 2 and all(type(length) is int and length > 0 for length in value)


def _range(value: Any) -> bool:
    return _numbers(value, 2) and 0 < value[0] <= value[1]


def _area(value: Any) -> bool:
    return _range(value) and value[1] <= 1


def _jitter(value: Any) -> bool:
    return _numbers(value, 4) and min(value) >= 0 and value[3] <= 0.5


# What values do, how to mend others, and the keys that this holds for. What concerns one framework alone, or is known
# where something is built, is checked there.
_RULES: tuple[tuple[Callable[[Any], bool], str, tuple[str, ...]], ...] = (
    (
        _share,
        "set it from 0 to 1",
        (
            *(
                "FRAMEWORK.THRESHOLD",
                "FRAMEWORK.OHEM.THRESHOLD",
                "WEIGHTING.LABELED_CONF",
                "RPPI.CONF",
                "RPPI.BOX_SCORE",
            ),
            *("FRAMEWORK.EMA_DECAY", "FRAMEWORK.CUTMIX.PROB", "FRAMEWORK.AEL.MOMENTUM", "INPUT.PASTE.PROB"),
            "WEIGHTING.MOMENTUM",
            *("INPUT.STRONG.JITTER_PROB", "INPUT.STRONG.GRAY_PROB", "INPUT.STRONG.BLUR_PROB", "TEST.BOX_IOU"),
            *("MODEL.SEM_SEG_HEAD.DECODER_DROPOUT", "MODEL.AUX_HEAD.DROPOUT", "MODEL.TIMM.BN_MOMENTUM"),
        ),
    ),
    (
        _positive,
        "set it above 0",
        (
            *("SOLVER.MAX_ITER", "SOLVER.IMS_PER_BATCH", "SOLVER.BASE_LR", "SOLVER.CHECKPOINTS_TO_KEEP"),
            "WEIGHTING.POWER",
        ),
    ),
    (
        _not_negative,
        "set it to 0 or more",
        (
            *("SOLVER.WARMUP_ITERS", "SOLVER.UNLABELED_IMS_PER_BATCH", "SOLVER.REFERENCE_IMS_PER_BATCH"),
            *("FRAMEWORK.ALPHA", "FRAMEWORK.BURN_IN", "FRAMEWORK.EMA_COPY_STEPS", "INPUT.SCALE_BASE"),
            *("DATALOADER.NUM_WORKERS", "DATASETS.MIN_BOX_AREA", "MODEL.TIMM.BN_EPS"),
            *("SOLVER.REFERENCE_WORLD_SIZE", *IN_EPOCHS),
        ),
    ),
    (_odd, "set it to 1, 3 or another odd number", ("MODEL.SEM_SEG_HEAD.ASPP_FUSE_KERNEL",)),
    (_size, "give (height, width) in pixels, such as (321, 321)", ("INPUT.CROP_SIZE",)),
    (
        _range,
        "give (lowest, highest), both above 0",
        ("INPUT.SCALE_RANGE", "INPUT.STRONG.BLUR_SIGMA", "INPUT.PASTE.SCALE_RANGE", "FRAMEWORK.CUTMIX.RATIO"),
    ),
    (_area, "give (lowest, highest), above 0 and up to 1", ("FRAMEWORK.CUTMIX.AREA",)),
    (
        _jitter,
        "give brightness, contrast, saturation and hue, 0 or more, hue up to 0.5",
        ("INPUT.STRONG.JITTER",),
    ),
)

_RESNET, _TIMM, _XCEPTION = _BACKBONES = (
    "build_unified_resnet_backbone",
    "build_timm_backbone",
    "build_xception_backbone",
)
_OF_BACKBONES = {
    **dict.fromkeys(("MODEL.TIMM.NAME", "MODEL.TIMM.BN_MOMENTUM"), (_TIMM, _XCEPTION)),
    **dict.fromkeys(("MODEL.RESNETS.DEPTH", "MODEL.RESNETS.STEM_TYPE"), (_RESNET,)),
    **dict.fromkeys(("MODEL.RESNETS.RES5_BLOCK_DILATIONS", "MODEL.RESNETS.STRIDE_IN_1X1"), (_RESNET,)),
}
"""Keys that some of the project's backbones alone read."""

_OWN_DESCRIPTION = "the data set's DESCRIPTION says it (ignore)"
_OWN_CROP = "set INPUT.CROP_SIZE and INPUT.SCALE_RANGE"
_UNUSED = {
    "DATALOADER.ASPECT_RATIO_GROUPING": "all crops have one size",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "all listed images are used",
    "DATALOADER.SAMPLER_TRAIN": "images come in counted permutations",
    "INPUT.CROP.ENABLED": _OWN_CROP,
    "INPUT.CROP.SIZE": _OWN_CROP,
    "INPUT.CROP.TYPE": _OWN_CROP,
    "INPUT.MAX_SIZE_TRAIN": _OWN_CROP,
    "INPUT.MIN_SIZE_TRAIN": _OWN_CROP,
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": _OWN_CROP,
    "MODEL.RESNETS.RES5_DILATION": "set MODEL.BACKBONE.OUTPUT_STRIDE and MODEL.RESNETS.RES5_BLOCK_DILATIONS",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": _OWN_DESCRIPTION,
    "MODEL.SEM_SEG_HEAD.LOSS_TYPE": "set FRAMEWORK.OHEM.ENABLED for hard pixels",
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": "set FRAMEWORK.ALPHA and MODEL.DETECTOR.LOSS_WEIGHT, the factors of the others",
    "TEST.AUG.ENABLED": "set TEST.INFERENCE.FLIP and TEST.INFERENCE.SCALES",
    "TEST.AUG.FLIP": "set TEST.INFERENCE.FLIP",
    "TEST.AUG.MIN_SIZES": "set TEST.INFERENCE.SCALES",
    "TEST.PRECISE_BN.ENABLED": "statistics are those of the training",
}
"""Keys of Detectron2 that nothing here reads, and what to do instead."""


def check_values(cfg: CfgNode) -> None:
    """Refuse values that could only fail, or silently do something else, later.

    Raises:
        InputError: a value out of its key's range; the message says what it can be.
    """
    for holds, mend, keys in _RULES:
        for key in keys:
            value = value_of(cfg, key)
            if not holds(value):
                raise InputError(f"{key}: {value!r} is out of its range; {mend}")
    check_name("SOLVER.LR_SCHEDULER_NAME", cfg.SOLVER.LR_SCHEDULER_NAME, _SCHEDULERS)
    check_name("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE, _CLIP_TYPES)
    head = cfg.MODEL.SEM_SEG_HEAD
    for key in ("PROJECT_CHANNELS", "CONVS_DIM", "ASPP_CHANNELS"):
        widths = head[key] if key == "PROJECT_CHANNELS" else [head[key]]
        if head.NORM == "GN" and any(width % _GROUPS for width in widths):
            raise InputError(
                f"MODEL.SEM_SEG_HEAD.{key}: GN has {_GROUPS} groups, into which {head[key]} does not divide; "
                f"take a multiple of {_GROUPS}, or another MODEL.SEM_SEG_HEAD.NORM"
            )


def check_overrides(cfg: CfgNode, given: Collection[str]) -> None:
    """Refuse keys of another backbone than the config's, which a user takes for a choice of the model.

    Args:
        cfg: the config, with the overrides.
        given: keys that a command line sets; a file may set them for others that have it as their `_BASE_`.

    Raises:
        InputError: one of them does nothing.
    """
    chosen = cfg.MODEL.BACKBONE.NAME
    for key in given:
        owners = _OF_BACKBONES.get(key, ())
        if owners and chosen not in owners and chosen in _BACKBONES:
            raise InputError(
                f"overrides: {key} has no effect on MODEL.BACKBONE.NAME {chosen}; set MODEL.BACKBONE.NAME {owners[0]} "
                "and MODEL.WEIGHTS too"
            )


def warn_unused(cfg: CfgNode, default: CfgNode) -> None:
    """Log a warning for each of Detectron2's keys that was set, and does nothing here.

    Args:
        cfg: the config.
        default: the one in which nothing was set.
    """
    for key, mend in _UNUSED.items():
        if value_of(cfg, key) != value_of(default, key):
            logging.getLogger(__name__).warning("%s: has no effect here; %s", key, mend)
