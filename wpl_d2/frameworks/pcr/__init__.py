"""PCR and what it alone needs."""

from .pcr import PCR

__all__ = ["PCR"]
