"""Pictures of labels, weights and boxes."""

from .layers import draw_boxes, heatmap, overlay
from .optional import optional_picture
from .preview import render_preview

__all__ = ["draw_boxes", "heatmap", "optional_picture", "overlay", "render_preview"]
