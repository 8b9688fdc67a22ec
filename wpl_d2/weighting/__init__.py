"""How far to trust pseudo-labels: RPPI, PPW and alternatives, in plain torch."""

from .calibrated import Calibrated
from .evidence import Evidence
from .memory_bank import MemoryBank, pooled_prototypes
from .refinement import Refinement
from .reliability import reliable_mask
from .sampling import sample_per_class
from .scores import SCORE_REGISTRY, Score
from .separation import ConfidenceSeparable, ConfidenceVariance
from .similarity import cosine, euclidean, rank_overlap
from .weigher import PixelWeigher

__all__ = [
    "SCORE_REGISTRY",
    "Calibrated",
    "ConfidenceSeparable",
    "ConfidenceVariance",
    "Evidence",
    "MemoryBank",
    "PixelWeigher",
    "Refinement",
    "Score",
    "cosine",
    "euclidean",
    "pooled_prototypes",
    "rank_overlap",
    "reliable_mask",
    "sample_per_class",
]
