"""Losses of pixels and their reduction, in plain torch."""

from .contrastive import info_nce
from .ohem import ohem_mask
from .pixel import cross_entropy
from .reduce import reduce_term

__all__ = ["cross_entropy", "info_nce", "ohem_mask", "reduce_term"]
