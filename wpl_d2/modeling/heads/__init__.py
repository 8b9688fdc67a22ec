"""Segmentation heads."""

from .aux_head import AuxHead
from .representation import RepresentationFork, representation_head
from .sem_seg_head import EmbeddingDeepLabV3PlusHead

__all__ = ["AuxHead", "EmbeddingDeepLabV3PlusHead", "RepresentationFork", "representation_head"]
