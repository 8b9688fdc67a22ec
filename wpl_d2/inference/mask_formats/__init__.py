"""The formats in which predicted masks are written, so that other tools can load and correct them."""

from .base import MaskFormat
from .coco import CocoMasks
from .geotiff import GeoTIFF
from .index_png import IndexPNG
from .labelme import LabelMe

MASK_FORMATS: dict[str, type[MaskFormat]] = {
    "index_png": IndexPNG,
    "geotiff": GeoTIFF,
    "coco": CocoMasks,
    "labelme": LabelMe,
}
"""By the name for `wpl predict --format`."""

__all__ = ["MASK_FORMATS", "MaskFormat"]
