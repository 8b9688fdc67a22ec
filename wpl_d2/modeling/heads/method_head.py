"""Heads that one semi-supervised method trains beside the segmentation head, and no prediction needs."""

from __future__ import annotations

from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry
from torch import nn

from ...utils.errors import check_name

METHOD_HEADS_REGISTRY = Registry("METHOD_HEADS")
METHOD_HEADS_REGISTRY.__doc__ = """
Heads of single methods, chosen by MODEL.METHOD_HEAD.NAME, called with (cfg, {feature map: ShapeSpec}).

They learn at the rate of the segmentation head, are in checkpoints, and are left out where a model is loaded to
predict or to be exported. The framework that trains one names it in its attribute `method_head`.
"""


def build_method_head(cfg: Any, input_shape: dict[str, ShapeSpec]) -> nn.Module | None:
    """Build the head that MODEL.METHOD_HEAD.NAME names; None for "".

    Raises:
        InputError: there is none of that name.
    """
    name = cfg.MODEL.METHOD_HEAD.NAME
    if not name:
        return None
    check_name("MODEL.METHOD_HEAD.NAME", name, [key for key, _ in METHOD_HEADS_REGISTRY])
    return METHOD_HEADS_REGISTRY.get(name)(cfg, input_shape)
