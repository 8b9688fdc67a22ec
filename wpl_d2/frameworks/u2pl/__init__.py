"""U2PL and what it alone needs."""

from .u2pl import U2PL

__all__ = ["U2PL"]
