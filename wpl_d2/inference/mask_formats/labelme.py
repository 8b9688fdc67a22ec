"""Masks as polygons in LabelMe's format."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np

from ...utils.errors import InputError
from ...utils.files import write_text
from ..sources import LABELME_MASKS, Frame, Source
from .base import MaskFormat
from .components import number_components

TOLERANCE = 1.0
"""Most pixels by which a polygon leaves the outline that it simplifies."""
_VERSION = "5.5.0"  # of LabelMe, whose files have not changed since


class LabelMe(MaskFormat):
    """`labelme/NAME.json`: a polygon around each 4-connected component, simplified to `TOLERANCE`.

    LabelMe has no holes: it draws shapes in the order of the file, later ones over earlier ones. The larger ones come
    first, and what lies in a hole is drawn over what is around it.
    """

    place = LABELME_MASKS

    def __init__(self, folder: Path, metadata: Mapping[str, Any], source: Source) -> None:
        """See `MaskFormat`."""
        super().__init__(folder, metadata, source)
        if source.video is not None:
            raise InputError(
                f"--format: LabelMe shows image files, and {source.video[0]} is a video; give its frames as images, or "
                "take --format coco"
            )

    def add(self, frame: Frame, labels: np.ndarray) -> tuple[()]:
        """See `MaskFormat`."""
        file = self.path / f"{frame.name}.json"
        names = self.metadata["classes"]
        same: dict[str, Any] = {"shape_type": "polygon", "group_id": None, "flags": {}}
        shapes = [
            {"label": names[class_id], "points": points.tolist()} | same for class_id, points in find_polygons(labels)
        ]
        content = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": PurePath(os.path.relpath(self.source.root / frame.file, file.parent)).as_posix(),
            "imageData": None,
            "imageHeight": labels.shape[0],
            "imageWidth": labels.shape[1],
        }
        write_text(file, json.dumps(content))
        return ()


def find_polygons(labels: np.ndarray, tolerance: float = TOLERANCE) -> list[tuple[int, np.ndarray]]:
    """The outlines of a label map's components, holes filled, from the largest to the smallest.

    Args:
        labels: (H, W) uint8 class ids.
        tolerance: of the simplification, in pixels.

    Returns:
        class id and vertices (n, 2) float x, y of each, where (0, 0) is the corner of the image. Outlines run a
        quarter of a pixel inside the outer edges of their pixels, so that those pixels are drawn whose centers are
        inside, and also those that are touched.
    """
    # Of 4-connected components one that is in a hole of another is inside of it as a whole, and is the smaller one.
    numbers, classes, boxes = number_components(labels, range(256), connectivity=4)
    found = []
    for number, (class_id, (x, y, w, h)) in enumerate(zip(classes.tolist(), boxes.tolist(), strict=True)):
        own = (numbers[y : y + h, x : x + w] == number).view(np.uint8)
        twice = cv2.resize(own, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        outline = cv2.findContours(twice, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0][0]
        simple = cv2.approxPolyDP(outline, 2 * tolerance, closed=True)
        points = (simple if len(simple) > 2 else outline)[:, 0] / 2 + (x + 0.25, y + 0.25)
        found.append((cv2.contourArea(outline), class_id, points))
    found.sort(key=lambda polygon: -polygon[0])
    return [(class_id, points) for _, class_id, points in found]
