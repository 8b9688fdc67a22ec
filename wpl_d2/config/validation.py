"""Which configs are valid: every check that needs neither data nor weights nor a model.

What a single framework requires is in its `check_config`; names of a registry are checked where it is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

import torch
from detectron2.config import CfgNode

from ..utils.errors import InputError
from ..weighting import Calibrated, Refinement
from ..weighting.scores import chosen_scores
from .keys import KEYS, UNUSED
from .layers import value_of

_GROUPS = 32  # of Detectron2's GN
_RESNET, _TIMM, _XCEPTION, _VIT, _MASKCLIP = _BACKBONES = (
    "build_unified_resnet_backbone",
    "build_timm_backbone",
    "build_xception_backbone",
    "build_vit_backbone",
    "build_maskclip_backbone",
)
_OF_BACKBONES = {
    "MODEL.TIMM.NAME": (_TIMM, _XCEPTION, _VIT, _MASKCLIP),
    "MODEL.TIMM.BN_MOMENTUM": (_TIMM, _XCEPTION),
    **dict.fromkeys(("MODEL.VIT.LAYERS", "MODEL.VIT.FROZEN"), (_VIT,)),
    **dict.fromkeys(("MODEL.MASKCLIP.DIM", "MODEL.MASKCLIP.LAYERS", "MODEL.MASKCLIP.CONV_WEIGHTS"), (_MASKCLIP,)),
    **dict.fromkeys(("MODEL.RESNETS.DEPTH", "MODEL.RESNETS.RES5_BLOCK_DILATIONS"), (_RESNET,)),
    **dict.fromkeys(("MODEL.RESNETS.STEM_TYPE", "MODEL.RESNETS.STRIDE_IN_1X1"), (_RESNET, _MASKCLIP)),
}
"""Keys that only some of the project's backbones read."""


def check_config(cfg: CfgNode) -> None:
    """Reject invalid values and keys that contradict each other.

    Args:
        cfg: complete, but for what is filled in from the data set.

    Raises:
        InputError: the message names the key and what it may be.
    """
    for section in dict.fromkeys(key.name.partition(".")[0] for key in KEYS):
        check_section(cfg, section)


def check_section(cfg: CfgNode, section: str) -> None:
    """`check_config` for the keys of one section, such as "TEST.INFERENCE", and of the sections in it."""
    for key in KEYS:
        if f"{key.name}.".startswith(f"{section}."):
            key.constraint.check(key.name, value_of(cfg, key.name))
    for name, check in _RULES.items():
        if f"{name}.".startswith(f"{section}."):
            check(cfg)


def check_device(key: str, device: str) -> None:
    """Check that a model can be put on a device.

    Args:
        key: what the user set, for the message.
        device: the value set, such as "cuda:1".

    Raises:
        InputError: PyTorch knows no such device, or it is a GPU that is not there.
    """
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"{key}: {device!r} is not a device; give cpu or cuda") from error
    count = torch.cuda.device_count()
    if kind.type == "cuda" and (kind.index or 0) >= count:
        raise InputError(f"{key}: {device!r} asked for, but there are {count} GPUs; give cpu or another one")


def check_overrides(cfg: CfgNode, given: Collection[str]) -> None:
    """Reject keys of another backbone than the config's: whoever sets one expects it to have an effect.

    Args:
        cfg: the config, with the overrides.
        given: keys that a command line sets; a file may set them for others that have it as their `_BASE_`.

    Raises:
        InputError: one of them has no effect.
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
    """Log a warning for each of Detectron2's keys that was set and has no effect here.

    Args:
        cfg: the config.
        default: the one in which nothing was set.
    """
    for key, mend in UNUSED.items():
        if value_of(cfg, key) != value_of(default, key):
            logging.getLogger(__name__).warning("%s: has no effect here; %s", key, mend)


def _check_scale(cfg: CfgNode) -> None:
    ranges = {"INPUT.SCALE_RANGE": True, "INPUT.PASTE.SCALE_RANGE": cfg.INPUT.PASTE.PROB > 0}
    for key, used in ranges.items():
        low, high = value_of(cfg, key)
        if cfg.INPUT.SCALE_BALANCED and used and not low <= 1 <= high:
            raise InputError(
                f"INPUT.SCALE_BALANCED: 1 is not inside {key} {(low, high)}; widen that, or set this to False"
            )


def _check_backbone(cfg: CfgNode) -> None:
    backbone, resnets = cfg.MODEL.BACKBONE, cfg.MODEL.RESNETS
    dilations = tuple(resnets.RES5_BLOCK_DILATIONS)
    if backbone.NAME == _RESNET and backbone.OUTPUT_STRIDE == 8 and min(dilations) < 2:
        raise InputError(
            f"MODEL.RESNETS.RES5_BLOCK_DILATIONS: {dilations} at output stride 8, where res4 has dilation 2; give at "
            "least that, such as (2, 4, 4) or (4, 8, 16)"
        )
    if backbone.NAME in (_TIMM, _XCEPTION, _VIT, _MASKCLIP):
        if backbone.FREEZE_AT:
            raise InputError("MODEL.BACKBONE.FREEZE_AT: timm backbones cannot be frozen in part; set it to 0")
        if resnets.NORM in ("GN", ""):
            raise InputError(
                f"MODEL.RESNETS.NORM: not {resnets.NORM!r} for timm backbones; choose auto, BN or FrozenBN"
            )


def _check_group_norm(cfg: CfgNode) -> None:
    head = cfg.MODEL.SEM_SEG_HEAD
    for key in ("PROJECT_CHANNELS", "CONVS_DIM", "ASPP_CHANNELS"):
        widths = head[key] if key == "PROJECT_CHANNELS" else [head[key]]
        if head.NORM == "GN" and any(width % _GROUPS for width in widths):
            raise InputError(
                f"MODEL.SEM_SEG_HEAD.{key}: GN has {_GROUPS} groups, into which {head[key]} does not divide; "
                f"take a multiple of {_GROUPS}, or another MODEL.SEM_SEG_HEAD.NORM"
            )


def _check_detector(cfg: CfgNode) -> None:
    architecture, mode = cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DETECTOR.MODE
    if architecture == "UnifiedSegDet" and mode == "alone":
        raise InputError(
            "MODEL.META_ARCHITECTURE: UnifiedSegDet, but MODEL.DETECTOR.MODE is alone; set it to FPNDetector"
        )
    if architecture == "FPNDetector" and mode != "alone":
        raise InputError(f"MODEL.DETECTOR.MODE: {mode!r} with META_ARCHITECTURE FPNDetector; set it to alone")
    if architecture == "FPNDetector" and cfg.MODEL.COMPILE:
        raise InputError("MODEL.COMPILE: True, but a detector alone has no part that is compiled; set it to False")
    stride = cfg.MODEL.BACKBONE.OUTPUT_STRIDE
    if architecture == "FPNDetector" and stride != 32:
        raise InputError(f"MODEL.BACKBONE.OUTPUT_STRIDE: {stride} under an FPN; set it to 32")


def _check_refinement(cfg: CfgNode) -> None:
    refine, keys = cfg.PSEUDO_LABEL.REFINE, cfg.WEIGHTING
    if refine == "none":
        return
    if cfg.MODEL.DETECTOR.MODE == "alone":
        raise InputError(f"PSEUDO_LABEL.REFINE: {refine}, but a detector labels no pixels; set it to none")
    needs = Refinement(refine).needs
    if "bank" in needs and not keys.ENABLED:
        raise InputError(f"PSEUDO_LABEL.REFINE: {refine} needs the weights' memory bank; set WEIGHTING.ENABLED True")
    learns = keys.ENABLED and Calibrated in chosen_scores(keys.KIND)
    _check_boxes(cfg, "PSEUDO_LABEL.REFINE", {refine: needs}, of_labeled=learns)


def _check_boxes(cfg: CfgNode, key: str, needs: Mapping[str, Collection[str]], of_labeled: bool) -> None:
    """Reject what needs boxes (see `Score.needs`) of images that have none.

    Args:
        cfg: the config.
        key: that names it.
        needs: of each name.
        of_labeled: whether labeled images need boxes too, which calibrated learns from.
    """
    mode = cfg.MODEL.DETECTOR.MODE
    for name, own in needs.items():
        if "boxes" not in own or mode == "shared":
            continue
        if of_labeled:
            raise InputError(
                f"{key}: {name} needs boxes of the labeled images that calibrated learns from, which are not cached; "
                "leave it out, or set MODEL.DETECTOR.MODE shared"
            )
        if mode != "cached":
            raise InputError(f"{key}: {name} needs boxes; set MODEL.DETECTOR.MODE shared or cached")


def _check_weighting(cfg: CfgNode) -> None:
    for section in ("WEIGHTING", "RPPI"):
        if cfg[section].ENABLED and cfg.MODEL.DETECTOR.MODE == "alone":
            raise InputError(f"{section}.ENABLED: True, but a detector labels no pixels; set it to False")
    keys = cfg.WEIGHTING
    if not keys.ENABLED:
        return
    scores = chosen_scores(keys.KIND)
    _check_boxes(cfg, "WEIGHTING.KIND", {score.kind: score.needs for score in scores}, of_labeled=False)
    if Calibrated in scores:
        constituents = {score.kind: score.needs for score in chosen_scores(keys.CALIBRATED.SCORES)}
        _check_boxes(cfg, "WEIGHTING.CALIBRATED.SCORES", constituents, of_labeled=True)
    if cfg.RPPI.ENABLED:
        return
    # Labeled pixels alone fill the memory bank: without any, all weights would stay neutral.
    if keys.LABELED_CONF >= 1:
        raise InputError(
            f"WEIGHTING.LABELED_CONF: no confidence is above {keys.LABELED_CONF:g}, so that the memory bank stays "
            "empty; lower it, or set RPPI.ENABLED True"
        )
    if keys.MIN_COUNT > keys.BANK_SIZE:
        raise InputError(
            f"WEIGHTING.MIN_COUNT: without RPPI the bank never holds {keys.MIN_COUNT} embeddings of a class; set it to "
            f"at most {keys.BANK_SIZE}, WEIGHTING.BANK_SIZE"
        )


def _check_rppi(cfg: CfgNode) -> None:
    if cfg.RPPI.ENABLED and cfg.MODEL.DETECTOR.MODE == "none":
        raise InputError("RPPI.ENABLED: there is no detector to agree with; set MODEL.DETECTOR.MODE shared or cached")
    if cfg.RPPI.ENABLED and not cfg.WEIGHTING.ENABLED:
        raise InputError("RPPI.ENABLED: reliable pixels only feed the weights' memory bank; set WEIGHTING.ENABLED True")


def _check_solver(cfg: CfgNode) -> None:
    if cfg.SOLVER.EARLY_STOPPING.PATIENCE:
        if not cfg.TEST.EVAL_PERIOD and not cfg.TEST.EVAL_EPOCHS:
            raise InputError(
                "SOLVER.EARLY_STOPPING.PATIENCE: counts evaluations, of which there are none; set TEST.EVAL_PERIOD"
            )
        if cfg.TEST.EVALUATOR == "submission":
            raise InputError("SOLVER.EARLY_STOPPING.PATIENCE: needs figures; set TEST.EVALUATOR confusion")
    amp = cfg.SOLVER.AMP
    if amp.ENABLED and amp.DTYPE == "float16" and cfg.MODEL.DEVICE == "cpu":
        raise InputError("SOLVER.AMP.DTYPE: float16 needs a GPU; take bfloat16, or SOLVER.AMP.ENABLED False")


def _check_windows(cfg: CfgNode) -> None:
    keys = cfg.TEST.INFERENCE
    stride, crop = tuple(keys.STRIDE), tuple(keys.CROP_SIZE)
    if keys.MODE == "slide" and (stride[0] > crop[0] or stride[1] > crop[1]):
        raise InputError(f"TEST.INFERENCE.STRIDE: {stride} leaves gaps between windows of {crop}; take at most that")


def _check_evaluator(cfg: CfgNode) -> None:
    keys, evaluator = cfg.TEST.INFERENCE, cfg.TEST.EVALUATOR
    if keys.MODE == "crop" and evaluator != "confusion":
        raise InputError(
            f"TEST.EVALUATOR: {evaluator} judges the whole image; set confusion, or TEST.INFERENCE.MODE to whole"
        )
    if keys.JUDGE_PADDING and keys.MODE != "crop":
        raise InputError(
            f"TEST.INFERENCE.JUDGE_PADDING: True, but MODE {keys.MODE} pads nothing that is judged; set MODE crop, or "
            "this to False"
        )
    if cfg.TEST.PSEUDO_LABELS and cfg.MODEL.DETECTOR.MODE == "alone":
        raise InputError("TEST.PSEUDO_LABELS: a detector alone labels no pixels; leave it empty")


_RULES: dict[str, Callable[[CfgNode], None]] = {
    "INPUT": _check_scale,
    "MODEL.BACKBONE": _check_backbone,
    "MODEL.SEM_SEG_HEAD": _check_group_norm,
    "MODEL.DETECTOR": _check_detector,
    "PSEUDO_LABEL": _check_refinement,
    "WEIGHTING": _check_weighting,
    "RPPI": _check_rppi,
    "SOLVER": _check_solver,
    "TEST.INFERENCE": _check_windows,
    "TEST": _check_evaluator,
}
"""Rules about several keys, by the section whose check includes them."""
