"""The model: a backbone that is computed once, a segmentation head on it and, if wanted, a detector."""

from .backbone import (
    MaskCLIPBackbone,
    TimmBackbone,
    TimmViT,
    ViTBackbone,
    build_maskclip_backbone,
    build_timm_backbone,
    build_unified_resnet_backbone,
    build_vit_backbone,
)
from .build import build_model
from .detector import FPNDetector, SharedDetector
from .ema import copy_model, ema_decay, update_ema
from .heads.allspark_head import AllSparkHead
from .heads.cam_head import SelfAttentionCAM
from .heads.dpt_head import DPTHead
from .heads.method_head import METHOD_HEADS_REGISTRY
from .heads.segformer_head import SegFormerHead
from .heads.sem_seg_head import EmbeddingDeepLabV3PlusHead
from .heads.vlg_head import VLGHead
from .layers import resolve_norm
from .meta_arch import UnifiedSegDet
from .model_pair import ModelPair
from .weights import load_backbone_weights

__all__ = [
    "METHOD_HEADS_REGISTRY",
    "AllSparkHead",
    "DPTHead",
    "EmbeddingDeepLabV3PlusHead",
    "FPNDetector",
    "MaskCLIPBackbone",
    "ModelPair",
    "SegFormerHead",
    "SelfAttentionCAM",
    "SharedDetector",
    "TimmBackbone",
    "TimmViT",
    "UnifiedSegDet",
    "VLGHead",
    "ViTBackbone",
    "build_maskclip_backbone",
    "build_model",
    "build_timm_backbone",
    "build_unified_resnet_backbone",
    "build_vit_backbone",
    "copy_model",
    "ema_decay",
    "load_backbone_weights",
    "resolve_norm",
    "update_ema",
]
