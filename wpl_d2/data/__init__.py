"""Data sets, augmentation and the two streams of training."""

import cv2

from .component_boxes import attach_component_boxes, boxes_from_mask
from .datasets import GENERATORS, Description, load_description, register, register_part, setup_datasets
from .eval_dataset import EvalDataset
from .image_io import UnreadableImageError, read_image, read_mask
from .loader import TrainBatch, build_labeled_loader, build_train_loader, build_unlabeled_loader
from .mappers import EvalMapper, LabeledMapper, UnlabeledMapper
from .pixel_values import PixelLayout
from .sampler import counted_seed, seeded
from .validation import check_training_data

# OpenCV's threads do not survive the fork that makes a loader's workers, which would wait for them for ever.
cv2.setNumThreads(0)

__all__ = [
    "GENERATORS",
    "Description",
    "EvalDataset",
    "EvalMapper",
    "LabeledMapper",
    "PixelLayout",
    "TrainBatch",
    "UnlabeledMapper",
    "UnreadableImageError",
    "attach_component_boxes",
    "boxes_from_mask",
    "build_labeled_loader",
    "build_train_loader",
    "build_unlabeled_loader",
    "check_training_data",
    "counted_seed",
    "load_description",
    "read_image",
    "read_mask",
    "register",
    "register_part",
    "seeded",
    "setup_datasets",
]
