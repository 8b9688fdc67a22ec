"""Describing a folder of images and masks that nobody has described yet."""

from .propose import Proposal, propose
from .values import AmbiguousLabelsError

__all__ = ["AmbiguousLabelsError", "Proposal", "propose"]
