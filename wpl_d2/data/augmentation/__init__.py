"""What is drawn at random about a training image: geometry, colours, mixing."""

from .geometry import RandomView, View
from .injection import draw_injection, inject_and_mix, known_labels
from .mixing import CutMixBoxes, cutmix, cutmix_masks, half_boxes
from .photometric import IntensityView, StrongView

__all__ = [
    "CutMixBoxes",
    "IntensityView",
    "RandomView",
    "StrongView",
    "View",
    "cutmix",
    "cutmix_masks",
    "draw_injection",
    "half_boxes",
    "inject_and_mix",
    "known_labels",
]
