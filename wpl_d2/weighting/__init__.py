"""Which pseudo-labels to trust, and how far: RPPI and PPW, in plain torch."""

from .memory_bank import MemoryBank, pooled_prototypes
from .reliability import reliable_mask
from .sampling import sample_per_class
from .similarity import build_similarity, center, cosine, euclidean, rank_overlap
from .weigher import SIMILARITY_MAPS, PixelWeigher

__all__ = [
    "SIMILARITY_MAPS",
    "MemoryBank",
    "PixelWeigher",
    "build_similarity",
    "center",
    "cosine",
    "euclidean",
    "pooled_prototypes",
    "rank_overlap",
    "reliable_mask",
    "sample_per_class",
]
