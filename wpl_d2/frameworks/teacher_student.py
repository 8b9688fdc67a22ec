"""Frameworks whose labeler is an EMA of the student."""

from __future__ import annotations

from typing import Any, Literal

import torch
from detectron2.config import configurable

from ..modeling import build_model, ema_decay, update_ema
from ..utils.errors import InputError
from .base import Framework


class TeacherStudent(Framework):
    """A teacher of the student's architecture, which follows it after every step.

    Its decay is min(1 - 1 / (t + 1), ema_max_decay), t counted from the first semi-supervised step; until then, and
    for `ema_copy_steps` steps more, the teacher is the student's copy.

    Attributes:
        teacher_trains: whether the teacher also computes in training mode, and so has BN statistics of its own.
    """

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
        """Put the framework together.

        Args:
            ema_max_decay: bound of the teacher's decay.
            ema_buffers: what becomes of the teacher's BN statistics, see `update_ema`.
            ema_copy_steps: semi-supervised steps in which the teacher is still the student's copy.
            framework: the arguments of `Framework`.
        """
        super().__init__(**framework)
        self.ema_max_decay = ema_max_decay
        self.ema_buffers = ema_buffers
        self.ema_copy_steps = ema_copy_steps

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """See `Framework.from_config`."""
        return super().from_config(cfg) | {
            "teacher": build_model(cfg),
            "ema_max_decay": cfg.FRAMEWORK.EMA_DECAY,
            "ema_buffers": cfg.FRAMEWORK.EMA_BUFFERS,
            "ema_copy_steps": cfg.FRAMEWORK.EMA_COPY_STEPS,
        }

    @classmethod
    def check_config(cls, cfg: Any) -> None:
        """See `Framework.check_config`."""
        super().check_config(cfg)
        if cfg.FRAMEWORK.EMA_BUFFERS == "none" and not cls.teacher_trains:
            raise InputError(
                "FRAMEWORK.EMA_BUFFERS: none, but this teacher's BN statistics would never move; set ema or copy"
            )

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher towards the student, and the staged embeddings into the bank."""
        super().after_step()
        step = self.iteration - self.burn_in
        decay = ema_decay(step, self.ema_max_decay) if step >= self.ema_copy_steps else 0.0
        update_ema(self.labeler, self.student, decay, "copy" if step < 0 else self.ema_buffers)
