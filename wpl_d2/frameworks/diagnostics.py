"""Warnings about settings and parts of a framework that have no effect on its training."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from .base import Framework
from .st_plus_plus import STPlusPlus, STPlusPlusLabeler
from .teacher_student import TeacherStudent
from .validation import local_batch


def ineffective_keys(cfg: Any, framework: Framework) -> list[str]:
    """Settings that will have no effect in a training, found before it.

    They may be meant so; what cannot be meant is an `InputError` of `check_config`.

    Args:
        cfg: of the training.
        framework: to be trained.

    Returns:
        a warning for each: `key: what has no effect; how to change it`.
    """
    checks = _semi_supervised(cfg, framework) if framework.semi_supervised else _supervised(cfg, framework)
    return [text for holds, text in [*checks, _ohem(cfg)] if holds]


def ineffective_parts(framework: Framework, sums: Mapping[str, float]) -> list[str]:
    """Parts of a framework that had no effect in a training, found after it.

    Args:
        framework: as the training left it.
        sums: of the scalars in its `last_step` over all steps, averaged over processes.

    Returns:
        a warning for each: `key: what had no effect`.
    """
    if not framework.semi_supervised:
        return []
    if "pseudo/selected" not in sums:
        return [
            f"FRAMEWORK.BURN_IN: {framework.burn_in}, and no step came to the unlabeled images: they taught nothing"
        ]
    checks = [
        (
            not sums["pseudo/selected"],
            f"no pseudo-label ever reached {framework.selection}: the unlabeled images taught nothing",
        ),
        *_weights(framework, sums),
    ]
    return [text for holds, text in checks if holds] + framework.ineffective_parts()


def _weights(framework: Framework, sums: Mapping[str, float]) -> list[tuple[bool, str]]:
    if (weigher := framework.weigher) is None:
        return []
    by_bank = "bank" in weigher.needs
    return [
        (
            by_bank and not weigher.labeled_bank.pushed.any(),
            f"WEIGHTING.LABELED_CONF: no labeled pixel was rightly labeled with a confidence above "
            f"{weigher.labeled_conf:g}: none joined the memory bank",
        ),
        (
            # Of STPlusPlus they join it after the training.
            weigher.box_score is not None and not sums["pseudo/reliable"] and not isinstance(framework, STPlusPlus),
            f"RPPI: no pseudo-label of a confidence of {weigher.reliable_conf:g} (RPPI.CONF) was ever in a box of its "
            f"class with a score of {weigher.box_score} (RPPI.BOX_SCORE): none joined the memory bank",
        ),
        (
            not sums["pseudo/weighted"],
            f"WEIGHTING.{'MIN_COUNT' if by_bank else 'KIND'}: every weight was neutral to the end"
            + f"; with fewer than {weigher.min_count} embeddings in the memory bank a class is not weighed" * by_bank,
        ),
    ]


def _supervised(cfg: Any, framework: Framework) -> list[tuple[bool, str]]:
    mend = f"{cfg.FRAMEWORK.NAME} learns from labels alone; set another FRAMEWORK.NAME, or this to"
    return [
        (len(cfg.DATASETS.UNLABELED) > 0, f"DATASETS.UNLABELED: {mend} ()"),
        (cfg.WEIGHTING.ENABLED and not isinstance(framework, STPlusPlusLabeler), f"WEIGHTING.ENABLED: {mend} False"),
    ]


def _semi_supervised(cfg: Any, framework: Framework) -> list[tuple[bool, str]]:
    keys, solver = cfg.FRAMEWORK, cfg.SOLVER
    burn_in, copies = keys.BURN_IN, keys.BURN_IN + keys.EMA_COPY_STEPS
    averages = isinstance(framework, TeacherStudent) and keys.EMA_DECAY > 0
    _, images = local_batch(cfg)
    return [
        (
            burn_in >= solver.MAX_ITER,
            f"FRAMEWORK.BURN_IN: {burn_in} of SOLVER.MAX_ITER {solver.MAX_ITER} steps are supervised, so that no "
            "unlabeled image trains; lower it, or set FRAMEWORK.NAME Supervised",
        ),
        (
            averages and burn_in < solver.MAX_ITER <= copies,
            f"FRAMEWORK.EMA_COPY_STEPS: with BURN_IN {copies} of SOLVER.MAX_ITER {solver.MAX_ITER} steps, so that the "
            "teacher is the student's copy to the end; lower it",
        ),
        (
            len(cfg.DATASETS.PSEUDO_LABELS) > 0 and not isinstance(framework, STPlusPlus),
            f"DATASETS.PSEUDO_LABELS: {keys.NAME} makes its own pseudo-labels; set FRAMEWORK.NAME STPlusPlus, or this "
            "to ()",
        ),
        (keys.ALPHA == 0, "FRAMEWORK.ALPHA: 0, so that pseudo-labels train nothing; raise it"),
        (
            framework.mixes and keys.CUTMIX.PROB > 0 and images == 1,
            "SOLVER.UNLABELED_IMS_PER_BATCH: one image a process at a time, which CutMix can mix with no other; raise "
            "it, or set FRAMEWORK.CUTMIX.PROB 0",
        ),
        (
            cfg.MODEL.DETECTOR.MODE == "cached" and "boxes" not in framework.needs,
            "MODEL.DETECTOR.MODE: cached, but nothing asks for boxes; set RPPI.ENABLED True, or this to none",
        ),
    ]


def _ohem(cfg: Any) -> tuple[bool, str]:
    ohem = cfg.FRAMEWORK.OHEM
    pixels = cfg.SOLVER.GRAD_ACCUMULATION * local_batch(cfg)[0] * prod(cfg.INPUT.CROP_SIZE)
    return (
        ohem.ENABLED and pixels <= ohem.MIN_KEPT,
        f"FRAMEWORK.OHEM.MIN_KEPT: {ohem.MIN_KEPT}, but a process's labeled images have {pixels} pixels, so that easy "
        "ones train too; lower it, or set FRAMEWORK.OHEM.ENABLED False",
    )
