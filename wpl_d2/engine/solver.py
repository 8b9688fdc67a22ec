"""The optimizer, with learning-rate factors for the parts of the model."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.solver import get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping

from ..errors import check_name


def build_optimizer(cfg: Any, student: torch.nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW over the student's parameters, with Detectron2's clipping (`SOLVER.CLIP_GRADIENTS`).

    Args:
        cfg: its `SOLVER` keys.
        student: a `UnifiedSegDet`; its backbone learns at BASE_LR, its segmentation heads at HEAD_LR_FACTOR times and
            its detector at DETECTOR_LR_FACTOR times that. Of an `FPNDetector` all but the backbone is the detector.
    """
    solver = cfg.SOLVER
    factors = {"backbone": 1.0, "sem_seg_head": solver.HEAD_LR_FACTOR, "aux_head": solver.HEAD_LR_FACTOR}
    factors |= dict.fromkeys(("detector", "proposal_generator", "roi_heads"), solver.DETECTOR_LR_FACTOR)
    params = get_default_optimizer_params(
        student,
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=lambda name: factors[name.split(".")[0]],
    )
    if check_name("SOLVER.OPTIMIZER", solver.OPTIMIZER, ("SGD", "AdamW")) == "AdamW":
        return maybe_add_gradient_clipping(cfg, torch.optim.AdamW)(params, lr=solver.BASE_LR)
    sgd = maybe_add_gradient_clipping(cfg, torch.optim.SGD)
    return sgd(params, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)


def state_size(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of what an optimizer keeps for its parameters, from its first step on."""
    size = 0
    for group in optimizer.param_groups:
        copies = 2 if "betas" in group else int(group.get("momentum", 0) > 0)
        size += copies * sum(parameter.numel() * parameter.element_size() for parameter in group["params"])
    return size
