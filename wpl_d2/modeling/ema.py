"""The teacher as exponential moving average (EMA) of the student."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


def ema_decay(step: int, max_decay: float) -> float:
    """The EMA decay of a step: min(1 - 1 / (step + 1), max_decay), so that step 0 copies the student.

    Args:
        step: counted from the first semi-supervised one.
        max_decay: in [0, 1].
    """
    return min(1 - 1 / (step + 1), max_decay)


@torch.no_grad()
def update_ema(
    teacher: nn.Module, student: nn.Module, decay: float, buffers: Literal["ema", "copy", "none"] = "ema"
) -> None:
    """Update `teacher` in place: t = decay * t + (1 - decay) * s, without a host sync.

    Args:
        teacher: of the student's architecture.
        student: unchanged.
        decay: in [0, 1]; 0 copies the student, 1 keeps the teacher.
        buffers: how floating-point buffers, such as BN's statistics, are updated. Integer buffers, such as BN's
            counters, are copied, or left alone with "none".

    Raises:
        ValueError: the numbers of parameters or buffers differ.
    """
    _lerp(list(teacher.parameters()), list(student.parameters()), 1 - decay)
    if buffers != "none":
        _lerp(list(teacher.buffers()), list(student.buffers()), 1 - decay if buffers == "ema" else 1.0)


def copy_model(teacher: nn.Module, student: nn.Module) -> None:
    """Copy all parameters and buffers of `student` into `teacher`."""
    update_ema(teacher, student, decay=0.0)


def _lerp(teacher: list[Tensor], student: list[Tensor], fraction: float) -> None:
    pairs = list(zip(teacher, student, strict=True))
    moved = [pair for pair in pairs if fraction < 1 and pair[0].is_floating_point()]
    copied = [pair for pair in pairs if not (fraction < 1 and pair[0].is_floating_point())]
    if moved:
        torch._foreach_lerp_([old for old, _ in moved], [new for _, new in moved], fraction)
    if copied:
        torch._foreach_copy_([old for old, _ in copied], [new for _, new in copied])
