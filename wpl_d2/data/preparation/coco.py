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
from .benchmark import Archive, Benchmark, Sources, part_of

CLASS_IDS: dict[int, int] = {
    category: thing + 1
    for category, thing in MetadataCatalog.get("coco_2017_train").thing_dataset_id_to_contiguous_id.items()
}
"""Class id of each of COCO's category ids: Detectron2's contiguous id + 1; 0 is void, which is evaluated."""


def find_sources(root: Path) -> Sources:
    """The images of the annotation files that are there, each with its annotations.

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
        raise InputError(f"{file}: is no COCO annotation file ({error!r}); unpack its archive again") from error


def read_source(source: tuple[dict[str, Any], list[dict[str, Any]]]) -> NDArray[np.uint8]:
    """Draw the objects of an image: crowds first, then from large to small, so that what overlaps stays visible.

    Args:
        source: an entry of COCO's "images" and the annotations of that image.

    Returns:
        (H, W) uint8 class ids.

    Raises:
        InputError: an annotation that is none of COCO's.
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
    """What sorts an annotation from bottom to top, and its shape."""
    rle = api.annToRLE(annotation)
    return not annotation.get("iscrowd"), -int(coco_mask.area(rle)), rle


def _line(key: str, list_name: str) -> str:
    # The description's template has the training images' folder.
    return key if part_of(list_name) == "train" else f"val2017/{key}.jpg masks/{key}.png"


_ANNOTATIONS = "annotations_trainval2017.zip"
COCO = Benchmark(
    name="coco",
    archives=tuple(
        Archive(file, f"http://images.cocodataset.org/{folder}/{file}", (gives,))
        for folder, file, gives in (
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
