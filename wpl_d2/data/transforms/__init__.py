"""What is drawn at random about a single training image: geometry and colours."""

from .geometry import RandomView, View
from .photometric import IntensityView, JitterView, StrongView

__all__ = ["IntensityView", "JitterView", "RandomView", "StrongView", "View"]
