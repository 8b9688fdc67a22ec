"""What is drawn at random about a single training image: geometry and colors."""

from .geometry import RandomView, View
from .photometric import IntensityView, JitterView, StrongView

__all__ = ["IntensityView", "JitterView", "RandomView", "StrongView", "View"]
