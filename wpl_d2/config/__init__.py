"""Every key of a run, what it may be, and how its values are read."""

from .config import get_cfg, load_cfg, override

__all__ = ["get_cfg", "load_cfg", "override"]
