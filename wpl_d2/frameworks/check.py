"""What can be wrong with the config of any framework."""

from __future__ import annotations

from typing import Any

from ..errors import InputError, check_name


def check_views(cfg: Any, views: int) -> None:
    """Refuse another number of strong views than a framework learns from.

    Args:
        cfg: the config of the framework.
        views: 0, 1 or 2.

    Raises:
        InputError: INPUT.STRONG.VIEWS is not that.
    """
    found, words = cfg.INPUT.STRONG.VIEWS, {0: "none", 1: "one", 2: "two"}
    if found != views:
        raise InputError(
            f"INPUT.STRONG.VIEWS: {found}, but {cfg.FRAMEWORK.NAME} learns from {words[views]}; set it to {views}"
        )


def check_paste(cfg: Any, pastes: bool) -> None:
    """Refuse second labeled images that nothing would be pasted from.

    Args:
        cfg: the config of the framework.
        pastes: whether the framework pastes.

    Raises:
        InputError: INPUT.PASTE.PROB is above 0 where nothing is pasted.
    """
    if cfg.INPUT.PASTE.PROB and not pastes:
        raise InputError(
            f"INPUT.PASTE.PROB: {cfg.INPUT.PASTE.PROB}, but {cfg.FRAMEWORK.NAME} pastes nothing; set it to 0"
        )


def check_config(cfg: Any) -> None:
    """Refuse what no framework could do.

    Raises:
        InputError: a name that does not exist, a number out of its range, or keys that do not go together.
    """
    choices = {
        "LABELED_FROM": ("student", "labeler"),
        "UNLAB_VIEW": ("weak", "strong"),
        "NORM": ("valid", "weight_sum"),
    }
    for key, valid in choices.items():
        check_name(f"WEIGHTING.{key}", cfg.WEIGHTING[key], valid)
    check_name("FRAMEWORK.EMA_BUFFERS", cfg.FRAMEWORK.EMA_BUFFERS, ("ema", "copy", "none"))
    if cfg.FRAMEWORK.OHEM.ENABLED and cfg.FRAMEWORK.OHEM.MIN_KEPT < 1:
        raise InputError(f"FRAMEWORK.OHEM.MIN_KEPT: {cfg.FRAMEWORK.OHEM.MIN_KEPT} is too small; set it to 1 or more")
    if cfg.MODEL.DETECTOR.MODE == "alone":
        raise InputError(
            f"FRAMEWORK.NAME: {cfg.FRAMEWORK.NAME} trains a segmenter, but MODEL.DETECTOR.MODE is alone; "
            "set it to Detector"
        )
    weighting, refine, no_boxes = cfg.WEIGHTING, cfg.PSEUDO_LABEL.REFINE, cfg.MODEL.DETECTOR.MODE == "none"
    if weighting.ENABLED and "detector" in weighting.KIND and no_boxes:
        raise InputError("WEIGHTING.KIND: detector weighs by boxes; set MODEL.DETECTOR.MODE shared or cached")
    if refine == "detector" and no_boxes:
        raise InputError("PSEUDO_LABEL.REFINE: detector goes by boxes; set MODEL.DETECTOR.MODE shared or cached")
    if refine == "prototype" and not weighting.ENABLED:
        raise InputError("PSEUDO_LABEL.REFINE: prototype goes by the weights' memory bank; set WEIGHTING.ENABLED True")
    if refine in ("component_vote", "detector") and not cfg.MODEL.DETECTOR.CLASSES:
        raise InputError(f"PSEUDO_LABEL.REFINE: {refine} is for classes with objects; name some in the data set's YAML")
    if cfg.RPPI.ENABLED and cfg.MODEL.DETECTOR.MODE == "none":
        raise InputError("RPPI.ENABLED: there is no detector to agree with; set MODEL.DETECTOR.MODE shared or cached")
    if cfg.RPPI.ENABLED and not cfg.WEIGHTING.ENABLED:
        raise InputError("RPPI.ENABLED: reliable pixels only feed the weights' memory bank; set WEIGHTING.ENABLED True")
