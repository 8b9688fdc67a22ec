"""Labels as tools write them, one file for each format: each is a `LabelFormat`, registered under its name."""

from .conversion import attach_labels, read_boxes
from .label_format import LABEL_FORMATS, LabelFormat, Labels, LabelSource, ListedImage, build_label_format
from .masks import Masks

__all__ = [
    "LABEL_FORMATS",
    "LabelFormat",
    "LabelSource",
    "Labels",
    "ListedImage",
    "Masks",
    "attach_labels",
    "build_label_format",
    "read_boxes",
]
