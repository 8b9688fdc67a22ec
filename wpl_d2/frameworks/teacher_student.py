"""Frameworks whose teacher is an EMA of the student."""

from __future__ import annotations

from typing import Any, Literal

import torch
from detectron2.config import configurable
from typing_extensions import override

from ..modeling import UnifiedSegDet, build_model, ema_decay, update_ema
from ..utils.errors import InputError
from .base import Framework


class TeacherStudent(Framework):
    """A teacher of the student's architecture that follows its weights after every step.

    The EMA's decay is min(1 - 1 / (t + 1), ema_max_decay), where t counts from the first semi-supervised step; until
    then, and for `ema_copy_steps` more steps, the teacher is a copy of the student.

    Attributes:
        teacher_trains: whether the teacher is also run in training mode, and so moves its own BN statistics.

    Args:
        ema_max_decay: upper bound of the decay.
        ema_buffers: how the teacher's BN statistics follow, see `update_ema`.
        ema_copy_steps: semi-supervised steps in which the teacher is still a copy of the student.
        framework: the arguments of `Framework`.
    """

    teacher: UnifiedSegDet
    teacher_trains = False

    @configurable
    def __init__(
        self,
        *,
        ema_max_decay: float,
        ema_buffers: Literal["ema", "copy", "none"] = "ema",
        ema_copy_steps: int = 0,
        **framework: Any,
    ) -> None:
        super().__init__(**framework)
        self.ema_max_decay = ema_max_decay
        self.ema_buffers = ema_buffers
        self.ema_copy_steps = ema_copy_steps

    @classmethod
    @override
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        return super().from_config(cfg) | {
            "teacher": build_model(cfg),
            "ema_max_decay": cfg.FRAMEWORK.EMA_DECAY,
            "ema_buffers": cfg.FRAMEWORK.EMA_BUFFERS,
            "ema_copy_steps": cfg.FRAMEWORK.EMA_COPY_STEPS,
        }

    @classmethod
    @override
    def check_config(cls, cfg: Any) -> None:
        super().check_config(cfg)
        if cfg.FRAMEWORK.EMA_BUFFERS == "none" and not cls.teacher_trains:
            raise InputError(
                "FRAMEWORK.EMA_BUFFERS: none, but this teacher's BN statistics would never move; set ema or copy"
            )

    @torch.no_grad()
    @override
    def after_step(self) -> None:
        super().after_step()
        step = self.iteration - self.burn_in
        decay = ema_decay(step, self.ema_max_decay) if step >= self.ema_copy_steps else 0.0
        update_ema(self.teacher, self.student, decay, "copy" if step < 0 else self.ema_buffers)
