"""A preset's schedule on another batch than the one it was made for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..errors import InputError

_STEPS = (
    ("SOLVER", "MAX_ITER"),
    ("SOLVER", "WARMUP_ITERS"),
    ("SOLVER", "CHECKPOINT_PERIOD"),
    ("TEST", "EVAL_PERIOD"),
    ("FRAMEWORK", "BURN_IN"),
    ("FRAMEWORK", "EMA_COPY_STEPS"),
)


def scale_schedule(cfg: Any, given: Collection[str] = ()) -> bool:
    """Fit learning rate and numbers of steps to SOLVER.IMS_PER_BATCH, in place: the same epochs at n times the batch.

    With n = IMS_PER_BATCH / REFERENCE_IMS_PER_BATCH, BASE_LR is multiplied by n (the linear rule of Goyal et al.,
    arXiv:1706.02677, as in Detectron2), UNLABELED_IMS_PER_BATCH too, and all that counts steps is divided by n.
    FRAMEWORK.OHEM.MIN_KEPT counts pixels of each process's batch and is left as it is: with half of the images on a
    process, the same number is a larger share of them.

    Args:
        cfg: not frozen; nothing is done where REFERENCE_IMS_PER_BATCH is 0.
        given: keys that the user has set for this very run; they are left as they are. But if REFERENCE_IMS_PER_BATCH
            is among them, the others are meant for that batch, and are scaled too.

    Returns:
        whether anything was changed.

    Raises:
        InputError: the unlabeled batch would not be a whole number of images.
    """
    solver = cfg.SOLVER
    reference, batch = solver.REFERENCE_IMS_PER_BATCH, solver.IMS_PER_BATCH
    if reference in (0, batch):
        return False
    if "SOLVER.REFERENCE_IMS_PER_BATCH" in given:
        given = ()
    unlabeled, rest = divmod(solver.UNLABELED_IMS_PER_BATCH * batch, reference)
    if "SOLVER.UNLABELED_IMS_PER_BATCH" not in given:
        if rest:
            raise InputError(
                f"SOLVER.IMS_PER_BATCH: {batch} in place of {reference} makes the unlabeled batch no whole number; "
                "set SOLVER.UNLABELED_IMS_PER_BATCH too"
            )
        solver.UNLABELED_IMS_PER_BATCH = unlabeled
    if "SOLVER.BASE_LR" not in given:
        solver.BASE_LR *= batch / reference
    for node, key in _STEPS:
        if f"{node}.{key}" not in given and cfg[node][key] > 0:
            cfg[node][key] = max(1, round(cfg[node][key] * reference / batch))
    # What is written to config.yaml is scaled and must not be scaled again.
    solver.REFERENCE_IMS_PER_BATCH = batch
    return True
