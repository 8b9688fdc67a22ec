"""Data sets, augmentation and the two streams of training."""

import cv2

from .augmentation import cutmix, cutmix_masks
from .boxes import boxes_from_mask, cached_boxes
from .check import check_training_data
from .datasets import GENERATORS, Description, load_description, register, register_part, setup_datasets
from .loader import (
    TrainBatch,
    build_labeled_loader,
    build_test_loader,
    build_train_loader,
    build_unlabeled_loader,
)
from .mappers import EvalMapper, LabeledMapper, UnlabeledMapper
from .masks import UnreadableImageError, read_image, read_mask
from .sampler import counted_seed, seeded

# OpenCV's threads do not survive the fork that makes a loader's workers, which would wait for them for ever.
cv2.setNumThreads(0)

__all__ = [
    "GENERATORS",
    "Description",
    "EvalMapper",
    "LabeledMapper",
    "TrainBatch",
    "UnlabeledMapper",
    "UnreadableImageError",
    "boxes_from_mask",
    "build_labeled_loader",
    "build_test_loader",
    "build_train_loader",
    "build_unlabeled_loader",
    "cached_boxes",
    "check_training_data",
    "counted_seed",
    "cutmix",
    "cutmix_masks",
    "load_description",
    "read_image",
    "read_mask",
    "register",
    "register_part",
    "seeded",
    "setup_datasets",
]
