"""What a run leaves behind and goes on from: checkpoints, what they say of themselves, the run's folder."""

from .checkpointer import FrameworkCheckpointer, load_model

__all__ = ["FrameworkCheckpointer", "load_model"]
