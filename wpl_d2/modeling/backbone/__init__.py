"""Backbones whose features are named res2 (stride 4) to res5, with a choice of output stride."""

from .maskclip import MaskCLIPBackbone, build_maskclip_backbone
from .resnet import build_unified_resnet_backbone
from .timm import TimmBackbone, build_timm_backbone
from .vit import TimmViT, ViTBackbone, build_vit_backbone
from .xception import XceptionBackbone, build_xception_backbone

__all__ = [
    "MaskCLIPBackbone",
    "TimmBackbone",
    "TimmViT",
    "ViTBackbone",
    "XceptionBackbone",
    "build_maskclip_backbone",
    "build_timm_backbone",
    "build_unified_resnet_backbone",
    "build_vit_backbone",
    "build_xception_backbone",
]
