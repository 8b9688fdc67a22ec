"""Preparing the field's benchmarks: from the published archives to masks, image lists and splits."""

from .ade20k import ADE20K
from .benchmark import Archive, Benchmark
from .cityscapes import CITYSCAPES
from .coco import COCO
from .fraction import new_split, parse_fraction
from .nyuv2 import NYUV2
from .prepare import Prepared, lists_table, prepare_images
from .splits import ImportedList, drop_system_files, import_lists, list_file, published_lists, write_unlabeled_lists
from .voc import VOC
from .voc_animals import VOC_ANIMALS

BENCHMARKS = {benchmark.name: benchmark for benchmark in (VOC, CITYSCAPES, COCO, ADE20K, VOC_ANIMALS, NYUV2)}

__all__ = [
    "BENCHMARKS",
    "Archive",
    "Benchmark",
    "ImportedList",
    "Prepared",
    "drop_system_files",
    "import_lists",
    "list_file",
    "lists_table",
    "new_split",
    "parse_fraction",
    "prepare_images",
    "published_lists",
    "write_unlabeled_lists",
]
