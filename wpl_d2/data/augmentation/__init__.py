"""What is drawn at random about a training image: geometry, colours, mixing."""

from .geometry import RandomView, View
from .mixing import CutMixBoxes, cutmix, cutmix_masks
from .photometric import StrongView

__all__ = ["CutMixBoxes", "RandomView", "StrongView", "View", "cutmix", "cutmix_masks"]
