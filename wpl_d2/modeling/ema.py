"""A teacher that follows a student: exponential moving average of its weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


def ema_decay(step: int, max_decay: float) -> float:
    """The decay of a step: min(1 - 1 / (step + 1), max_decay), so that step 0 copies the student.

    Args:
        step: counted from the first semi-supervised one.
        max_decay: the bound, in [0, 1].
    """
    return min(1 - 1 / (step + 1), max_decay)


@torch.no_grad()
def update_ema(
    teacher: nn.Module, student: nn.Module, decay: float, buffers: Literal["ema", "copy", "none"] = "ema"
) -> None:
    """Move `teacher` towards `student` in place, t = decay * t + (1 - decay) * s, without a host sync.

    Args:
        teacher: of the same architecture as the student.
        student: what is followed.
        decay: in [0, 1]; 0 copies, 1 keeps the teacher.
        buffers: what happens to floating-point buffers, such as BN's statistics. Integer buffers, such as
            BN's counters, are copied, or left alone with "none".

    Raises:
        ValueError: the two do not have the same numbers of parameters and buffers.
    """
    _lerp(list(teacher.parameters()), list(student.parameters()), 1 - decay)
    if buffers != "none":
        _lerp(list(teacher.buffers()), list(student.buffers()), 1 - decay if buffers == "ema" else 1.0)


def copy_model(teacher: nn.Module, student: nn.Module) -> None:
    """Make all parameters and buffers of `teacher` equal to `student`'s, in place."""
    update_ema(teacher, student, decay=0.0)


def _lerp(teacher: list[Tensor], student: list[Tensor], share: float) -> None:
    pairs = list(zip(teacher, student, strict=True))
    moved = [pair for pair in pairs if share < 1 and pair[0].is_floating_point()]
    copied = [pair for pair in pairs if not (share < 1 and pair[0].is_floating_point())]
    if moved:
        torch._foreach_lerp_([old for old, _ in moved], [new for _, new in moved], share)
    if copied:
        torch._foreach_copy_([old for old, _ in copied], [new for _, new in copied])
