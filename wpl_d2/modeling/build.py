"""Building the model of a config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.modeling import build_model as build_detectron2_model

from ..config.validation import check_device
from ..utils.cpu_speed import speed_up_on_cpu
from ..utils.errors import InputError, check_name
from .layers import normalize_in_float32, stop_counting_batches

if TYPE_CHECKING:
    from .meta_arch import UnifiedSegDet


def build_model(cfg: Any) -> UnifiedSegDet:
    """Build the model of `cfg` with random weights on MODEL.DEVICE; MODEL.WEIGHTS is not read.

    Raises:
        InputError: the architecture, backbone, head or device does not exist, the classes are not known yet, or
            channels and their statistics differ in number.
    """
    check_device("MODEL.DEVICE", cfg.MODEL.DEVICE)
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        if len(cfg.MODEL[key]) != len(cfg.INPUT.CHANNELS):
            raise InputError(
                f"MODEL.{key}: has {len(cfg.MODEL[key])} values, and images have {len(cfg.INPUT.CHANNELS)} channels; "
                "give one for each"
            )
    check_name("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, [key for key, _ in META_ARCH_REGISTRY])
    check_name("MODEL.BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME, [key for key, _ in BACKBONE_REGISTRY])
    # Detectron2's own heads return no embedding.
    heads = [key for key, head in SEM_SEG_HEADS_REGISTRY if not head.__module__.startswith("detectron2.")]
    check_name("MODEL.SEM_SEG_HEAD.NAME", cfg.MODEL.SEM_SEG_HEAD.NAME, heads)
    model = build_detectron2_model(cfg)
    normalize_in_float32(model)
    speed_up_on_cpu(model)
    stop_counting_batches(model)
    # Faster convolutions on CPUs, and on GPUs with tensor cores.
    return model.to(memory_format=torch.channels_last)
