"""Data sets: one file per family."""

from .folder import Description, load_description, register
from .generators import GENERATORS, generate_if_missing
from .setup import register_part, setup_datasets

__all__ = [
    "GENERATORS",
    "Description",
    "generate_if_missing",
    "load_description",
    "register",
    "register_part",
    "setup_datasets",
]
