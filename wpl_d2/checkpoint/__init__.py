"""Checkpoints, their metadata, and the folder of a run."""

from .checkpointer import FrameworkCheckpointer, load_framework
from .loading import load_checkpoint, load_initial_weights, load_model

__all__ = ["FrameworkCheckpointer", "load_checkpoint", "load_framework", "load_initial_weights", "load_model"]
