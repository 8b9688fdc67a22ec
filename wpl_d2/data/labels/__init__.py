"""Labels as tools write them, one file for each format: each is a `LabelFormat`, registered under its name."""

from .class_masks import ClassMasks
from .coco import Coco
from .coco_panoptic import CocoPanoptic
from .color_masks import ColorMasks
from .conversion import attach_labels
from .cvat import Cvat
from .label_format import LABEL_FORMATS, LabelFormat, Labels, LabelSource, ListedImage, build_label_format
from .label_studio import LabelStudio
from .labelme import LabelMe
from .masks import Masks
from .shapes import LabeledImage, Region, Shape, rasterize
from .via import Via
from .yolo import Yolo

__all__ = [
    "LABEL_FORMATS",
    "ClassMasks",
    "Coco",
    "CocoPanoptic",
    "ColorMasks",
    "Cvat",
    "LabelFormat",
    "LabelMe",
    "LabelSource",
    "LabelStudio",
    "LabeledImage",
    "Labels",
    "ListedImage",
    "Masks",
    "Region",
    "Shape",
    "Via",
    "Yolo",
    "attach_labels",
    "build_label_format",
    "rasterize",
]
