"""The config of a run: its keys, their defaults and valid values, and how files and command lines set them."""

from .config import get_cfg, load_cfg, override
from .reference import reference

__all__ = ["get_cfg", "load_cfg", "override", "reference"]
