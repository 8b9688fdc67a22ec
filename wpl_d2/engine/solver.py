"""The optimizer, and the schedule: counted in epochs, and scaled to another batch size."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from detectron2.solver import get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping

from ..config.layers import IN_EPOCHS, value_of
from ..data.loader import load_records
from ..utils.errors import InputError


def build_optimizer(cfg: Any, *students: torch.nn.Module) -> torch.optim.Optimizer:
    """Build SGD or AdamW over the students' parameters, with Detectron2's SOLVER.CLIP_GRADIENTS.

    The backbone has the learning rate BASE_LR, segmentation heads HEAD_LR_FACTOR times that, and the detector (of an
    `FPNDetector` everything but the backbone) DETECTOR_LR_FACTOR times that.

    Args:
        cfg: a complete config.
        students: each a `UnifiedSegDet` or `FPNDetector`.
    """
    solver = cfg.SOLVER
    factors = {"backbone": 1.0, **dict.fromkeys(("sem_seg_head", "aux_head", "method_head"), solver.HEAD_LR_FACTOR)}
    factors |= dict.fromkeys(("detector", "proposal_generator", "roi_heads"), solver.DETECTOR_LR_FACTOR)
    params = [
        group
        for student in students
        for group in get_default_optimizer_params(
            student,
            base_lr=solver.BASE_LR,
            weight_decay=solver.WEIGHT_DECAY,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            bias_lr_factor=solver.BIAS_LR_FACTOR,
            weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
            lr_factor_func=lambda name: factors[name.split(".")[0]],
        )
    ]
    # Fused: one pass over the weights instead of one for each operation.
    if solver.OPTIMIZER == "AdamW":
        return maybe_add_gradient_clipping(cfg, torch.optim.AdamW)(params, lr=solver.BASE_LR, fused=True)
    sgd = maybe_add_gradient_clipping(cfg, torch.optim.SGD)
    return sgd(params, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV, fused=True)


def optimizer_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state after its first step."""
    size = 0
    for group in optimizer.param_groups:
        copies = 2 if "betas" in group else int(group.get("momentum", 0) > 0)
        size += copies * sum(parameter.numel() * parameter.element_size() for parameter in group["params"])
    return size


def resolve_epochs(cfg: Any) -> int:
    """Turn what counts epochs, such as SOLVER.EPOCHS, into steps, in place; `scale_schedule` is to follow.

    Args:
        cfg: not frozen, with its data registered.

    Returns:
        the steps of an epoch; 0 where nothing counts epochs.

    Raises:
        InputError: a list cannot be read, or see `steps_of_epoch`.
    """
    counted = [key for key in IN_EPOCHS if value_of(cfg, key)]
    if not counted:
        return 0
    key = "UNLABELED" if cfg.DATASETS.UNLABELED else "TRAIN"
    images = sum(len(load_records(name, f"DATASETS.{key}")) for name in cfg.DATASETS[key])
    steps = steps_of_epoch(cfg, images)
    for epochs in counted:
        cfg.merge_from_list([IN_EPOCHS[epochs], value_of(cfg, epochs) * steps, epochs, 0])
    return steps


def steps_of_epoch(cfg: Any, images: int) -> int:
    """The steps of an epoch, 1 or more, at the batch that the schedule is meant for; see SOLVER.EPOCHS.

    Args:
        cfg: its REFERENCE_WORLD_SIZE, and REFERENCE_IMS_PER_BATCH or IMS_PER_BATCH: in the published codes an epoch is
            as long with fewer unlabeled than labeled images in a batch.
        images: of the epoch.

    Raises:
        InputError: the processes cannot share the batch.
    """
    solver = cfg.SOLVER
    processes, batch = solver.REFERENCE_WORLD_SIZE or 1, solver.REFERENCE_IMS_PER_BATCH or solver.IMS_PER_BATCH
    if batch % processes:
        raise InputError(
            f"SOLVER.REFERENCE_WORLD_SIZE: {processes} does not divide a batch of {batch} images; lower it"
        )
    return max(1, -(-images // processes) // (batch // processes))


def scale_schedule(cfg: Any, given: Collection[str] = ()) -> bool:
    """Scale learning rate and numbers of steps to SOLVER.IMS_PER_BATCH, in place, for the same number of epochs.

    With n = IMS_PER_BATCH / REFERENCE_IMS_PER_BATCH, BASE_LR is multiplied by n (the linear rule of Goyal et al.,
    arXiv:1706.02677, as in Detectron2), UNLABELED_IMS_PER_BATCH too, and numbers of steps are divided by n.
    FRAMEWORK.OHEM.MIN_KEPT, which counts pixels of each process's batch, is not scaled: with half of the images per
    process, the same number is a larger fraction of the pixels.

    Args:
        cfg: not frozen; unchanged if REFERENCE_IMS_PER_BATCH is 0.
        given: keys that the user set for this run, which are not changed. But if REFERENCE_IMS_PER_BATCH is among them,
            the others refer to that batch, and are scaled too.

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
    for key in ("SOLVER.WARMUP_ITERS", *IN_EPOCHS.values()):
        if key not in given and (steps := value_of(cfg, key)) > 0:
            cfg.merge_from_list([key, max(1, round(steps * reference / batch))])
    # config.yaml has the scaled values, which must not be scaled again.
    solver.REFERENCE_IMS_PER_BATCH = batch
    return True
