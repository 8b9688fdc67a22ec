"""Segmentation heads."""

from .aux_head import AuxHead
from .cam_head import SelfAttentionCAM
from .correlation_head import Correlation, CorrelationHead
from .method_head import METHOD_HEADS_REGISTRY, build_method_head
from .sem_seg_head import EmbeddingDeepLabV3PlusHead, RepresentationFork, representation_head

__all__ = [
    "METHOD_HEADS_REGISTRY",
    "AuxHead",
    "Correlation",
    "CorrelationHead",
    "EmbeddingDeepLabV3PlusHead",
    "RepresentationFork",
    "SelfAttentionCAM",
    "build_method_head",
    "representation_head",
]
