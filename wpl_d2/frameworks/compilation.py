"""Backbone and segmentation head as compiled code (MODEL.COMPILE), inside of a training step alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..modeling import UnifiedSegDet
from ..utils.errors import InputError


class CompiledParts:
    """What `torch.compile` makes of the backbones and segmentation heads of all models of a framework.

    The models themselves stay as they are: names of weights, copies, evaluation, and export know nothing of it.
    Each shape of a step is compiled for itself, when it comes first. Images of an evaluation, with sizes of their own,
    would be compiled over and over.
    """

    def __init__(self, framework: nn.Module) -> None:
        """Find the models; nothing is compiled yet."""
        models = [module for module in framework.modules() if isinstance(module, UnifiedSegDet)]
        # A pair of models has the parts of its first one.
        parts = dict.fromkeys(part for model in models for part in (model.backbone, model.sem_seg_head))
        self._parts = [(part, torch.compile(part.forward, dynamic=False)) for part in parts]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Run the models' backbones and heads by compiled code inside."""
        for part, compiled in self._parts:
            part.forward = compiled
        try:
            yield
        finally:
            for part, _ in self._parts:
                del part.forward


def check_compiler(device: str) -> None:
    """Compile something small, which takes seconds, before a run begins.

    Args:
        device: MODEL.DEVICE.

    Raises:
        InputError: this machine cannot compile for it.
    """
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except Exception as error:  # whatever compilers raise
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"MODEL.COMPILE: nothing can be compiled for {device} here ({reason}); install a C++ compiler (for "
            "a GPU also triton), or set it to False"
        ) from error
