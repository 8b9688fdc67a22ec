"""COCO 2017 as 81 classes: 118 287 training and 5000 validation images."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO as CocoApi

from ...utils.errors import InputError
from .benchmark import Archive, Benchmark, Sources, list_part

CLASS_IDS: dict[int, int] = {
    category: thing + 1
    for category, thing in MetadataCatalog.get("coco_2017_train").thing_dataset_id_to_contiguous_id.items()
}
"""Class id of each COCO category id: Detectron2's contiguous id + 1. Class 0, void, is evaluated too."""


def find_sources(root: Path) -> Sources:
    """Find the images of the existing annotation files, each with its annotations.

    Args:
        root: holds `annotations/instances_{train,val}2017.json`.

    Raises:
        InputError: an annotation file is broken.
    """
    return {part: _annotations(root / "annotations" / f"instances_{part}2017.json") for part in ("train", "val")}


def _annotations(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            api = CocoApi(file)
        return {Path(image["file_name"]).stem: (image, api.imgToAnns[image["id"]]) for image in api.imgs.values()}
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise InputError(f"{file}: is not a COCO annotation file ({error!r}); unpack its archive again") from error


def read_source(source: tuple[dict[str, Any], list[dict[str, Any]]]) -> NDArray[np.uint8]:
    """Draw the objects of an image, crowds first, then from large to small, so that small objects stay visible.

    Args:
        source: an entry of COCO's "images" and the annotations of that image.

    Returns:
        (H, W) uint8 class ids.

    Raises:
        InputError: an annotation is invalid.
    """
    image, annotations = source
    api = CocoApi()
    api.imgs = {image["id"]: image}
    try:
        shapes = [(_layer(a, api), CLASS_IDS[a["category_id"]]) for a in annotations if a["segmentation"]]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"image {image['id']}: has a broken annotation ({error!r}); unpack its archive again"
        ) from error
    mask = np.zeros((image["height"], image["width"]), dtype=np.uint8)
    for (_, _, rle), class_id in sorted(shapes, key=lambda shape: shape[0][:2]):
        mask[coco_mask.decode(rle).astype(bool)] = class_id
    return mask


def _layer(annotation: dict[str, Any], api: CocoApi) -> tuple[bool, int, dict[str, Any]]:
    """The order of an annotation from bottom to top, and its mask (RLE)."""
    rle = api.annToRLE(annotation)
    return not annotation.get("iscrowd"), -int(coco_mask.area(rle)), rle


def _line(key: str, list_name: str) -> str:
    # The description's template is for training images.
    return key if list_part(list_name) == "train" else f"val2017/{key}.jpg masks/{key}.png"


_ANNOTATIONS = "annotations_trainval2017.zip"
COCO = Benchmark(
    name="coco",
    archives=tuple(
        Archive(file, f"http://images.cocodataset.org/{folder}/{file}", (contents,))
        for folder, file, contents in (
            ("zips", "train2017.zip", "train2017"),
            ("zips", "val2017.zip", "val2017"),
            ("annotations", _ANNOTATIONS, "annotations/instances_train2017.json"),
            ("annotations", _ANNOTATIONS, "annotations/instances_val2017.json"),
        )
    ),
    file_name=re.compile(r"(\d{12})(\.jpg)?"),
    line=_line,
    find_sources=find_sources,
    read_source=read_source,
)
