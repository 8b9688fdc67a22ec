"""Backbones whose features are named res2 (stride 4) to res5, with a choice of output stride."""

from .resnet import build_unified_resnet_backbone
from .timm import TimmBackbone, build_timm_backbone
from .vit import ViTBackbone, build_vit_backbone
from .xception import XceptionBackbone, build_xception_backbone

__all__ = [
    "TimmBackbone",
    "ViTBackbone",
    "XceptionBackbone",
    "build_timm_backbone",
    "build_unified_resnet_backbone",
    "build_vit_backbone",
    "build_xception_backbone",
]
