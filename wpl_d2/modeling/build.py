"""From a config to the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling import build_model as build_detectron2_model

from ..errors import InputError, nearest

if TYPE_CHECKING:
    from .meta_arch import UnifiedSegDet


def build_model(cfg: Any) -> UnifiedSegDet:
    """Build the model of `cfg` on `cfg.MODEL.DEVICE`, with random weights: it does not read MODEL.WEIGHTS.

    Raises:
        InputError: no such MODEL.META_ARCHITECTURE, or the data set's classes are not known yet.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in META_ARCH_REGISTRY:
        known = [key for key, _ in META_ARCH_REGISTRY]
        raise InputError(f"MODEL.META_ARCHITECTURE: no architecture {name!r}; {nearest(name, known)}")
    return build_detectron2_model(cfg)
