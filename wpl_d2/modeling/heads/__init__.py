"""Segmentation heads."""

from .aux_head import AuxHead
from .sem_seg_head import EmbeddingDeepLabV3PlusHead, RepresentationFork, representation_head

__all__ = ["AuxHead", "EmbeddingDeepLabV3PlusHead", "RepresentationFork", "representation_head"]
