"""Pictures of labels, weights and boxes."""

from .layers import draw_boxes, heatmap, overlay
from .preview import render_preview

__all__ = ["draw_boxes", "heatmap", "overlay", "render_preview"]
