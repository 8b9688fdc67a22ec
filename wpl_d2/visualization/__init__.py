"""Pictures of labels, weights and boxes."""

from .draw import draw_boxes, heatmap, optional_picture, overlay, render
from .preview import render_preview

__all__ = ["draw_boxes", "heatmap", "optional_picture", "overlay", "render", "render_preview"]
