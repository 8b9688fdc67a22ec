"""Losses of pixels and their reduction, in plain torch."""

from .ohem import ohem_mask
from .pixel import cross_entropy
from .reduce import reduce_term

__all__ = ["cross_entropy", "ohem_mask", "reduce_term"]
