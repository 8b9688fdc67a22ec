"""AEL and what it alone needs."""

from .ael import AEL

__all__ = ["AEL"]
