"""From a config to the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling import build_model as build_detectron2_model

from ..errors import check_name
from .norm import normalize_in_float32

if TYPE_CHECKING:
    from .meta_arch import UnifiedSegDet


def build_model(cfg: Any) -> UnifiedSegDet:
    """Build the model of `cfg` on `cfg.MODEL.DEVICE`, with random weights: it does not read MODEL.WEIGHTS.

    Raises:
        InputError: no such MODEL.META_ARCHITECTURE, or the data set's classes are not known yet.
    """
    check_name("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, [key for key, _ in META_ARCH_REGISTRY])
    model = build_detectron2_model(cfg)
    normalize_in_float32(model)
    return model
