"""What can be wrong with the config of any framework."""

from __future__ import annotations

from typing import Any

from detectron2.utils import comm

from ..modeling import resolve_norm
from ..utils.errors import InputError, check_name


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


def images_per_process(cfg: Any) -> tuple[int, int]:
    """How many labeled and how many unlabeled images a process gets in a step."""
    labeled, unlabeled = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.UNLABELED_IMS_PER_BATCH
    world = comm.get_world_size()
    return labeled // world, unlabeled // world if cfg.DATASETS.UNLABELED else 0


def check_pool_norm(cfg: Any, images: int) -> None:
    """Refuse to normalize ASPP's image pooling, one value an image and channel, over a batch of one.

    Args:
        cfg: the config of the framework.
        images: of the smallest batch that a process computes in training mode.

    Raises:
        InputError: the norm is BN, the batch one image, and no other process adds to it.
    """
    head = cfg.MODEL.SEM_SEG_HEAD
    norm = resolve_norm(head.NORM, cfg.MODEL.DEVICE)
    images *= 1 if norm == "BN" else comm.get_world_size()
    if head.ASPP_POOL_NORM and norm in ("BN", "SyncBN", "naiveSyncBN") and images < 2:
        raise InputError(
            f"MODEL.SEM_SEG_HEAD.ASPP_POOL_NORM: True, but {norm} of ASPP's pooling cannot train on a batch of one "
            "image; give each process two or more (SOLVER.IMS_PER_BATCH, SOLVER.UNLABELED_IMS_PER_BATCH), or set "
            "MODEL.SEM_SEG_HEAD.NORM GN or this key False"
        )


def check_config(cfg: Any) -> None:
    """Refuse what no framework could do.

    Raises:
        InputError: a name that does not exist, a number out of its range, or keys that do not go together.
    """
    choices = {
        "LABELED_FROM": ("student", "teacher"),
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
    if cfg.WEIGHTING.ENABLED and not cfg.RPPI.ENABLED:
        _check_labeled_bank(cfg.WEIGHTING)


def _check_labeled_bank(keys: Any) -> None:
    """Refuse what leaves all weights neutral for ever, since labeled pixels alone fill the memory bank."""
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
