"""Describing a folder of images and masks that nobody has described yet."""

from .propose import Proposal, propose

__all__ = ["Proposal", "propose"]
