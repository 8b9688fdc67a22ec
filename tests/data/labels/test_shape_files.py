"""Files that the tools' own libraries wrote (`make_files.py`), against what they were told to write."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from wpl_d2.data import load_description
from wpl_d2.data.image_io import read_mask, read_record_mask
from wpl_d2.data.index_masks import read_boxes

FILES = Path(__file__).parent / "files"
CLASSES = ["ground", "box", "ball"]
LABELME = {"format": "labelme", "files": "labelme/{id}.json"}
POLYGONS = {"format": "label_studio", "files": "label_studio_polygons.json", "controls": ["labelpolygons"]}
EXACT = [
    *({"format": "coco", "files": f"coco_{kind}.json"} for kind in ("polygons", "uncompressed", "compressed")),
    {"format": "coco", "files": ["coco_polygons.json"], "other": "ignore"},
    LABELME,
    {"format": "cvat", "files": "cvat.xml"},
    {"format": "via", "files": "via_project.json"},
    {"format": "via", "files": "via_annotations.json", "attribute": "type"},
    {"format": "label_studio", "files": "label_studio_brush.json"},
    POLYGONS,
    {"format": "yolo", "files": "yolo/labels/{id}.txt", "names": "yolo/data.yaml"},
]
MIDDLES = [
    {"format": "coco", "files": "coco_supervision.json"},
    {"format": "yolo", "files": "yolo_supervision/labels/{id}.txt", "names": "yolo_supervision/data.yaml"},
]


@pytest.fixture
def describe(tmp_path, monkeypatch):
    """Copies the files, and describes them with some settings of `labels`."""
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    shutil.copytree(FILES, root)
    (root / "all.txt").write_text("a\nb\nc\n")

    def write(labels, **changes):
        content = {"name": "files", "root": ".", "image": "images", "classes": CLASSES, "lists": {"all": "all.txt"}}
        labels = {"uncovered": "ground"} | labels
        (root / "files.yaml").write_text(yaml.safe_dump(content | {"labels": labels, "objects": CLASSES[1:]} | changes))
        return load_description(root / "files.yaml")

    return write


def expected_boxes(name):
    found = json.loads((FILES / "boxes.json").read_text())[name]
    return sorted([CLASSES.index(category), *box] for category, *box in found)


def stored_boxes(record):
    boxes, classes = read_boxes(record["box_file_name"])
    return sorted([class_id, *box] for class_id, box in zip(classes.tolist(), boxes.tolist(), strict=True))


@pytest.mark.parametrize("settings", EXACT, ids=lambda s: f"{s['format']}-{s['files']}")
def test_masks_and_boxes_are_those_that_were_stored(describe, settings):
    a, b, c = describe(settings).records("all")
    for name, record in (("a", a), ("b", b)):
        np.testing.assert_array_equal(read_record_mask(record), read_mask(FILES / "masks" / f"{name}.png"))
        assert stored_boxes(record) == expected_boxes(name)
    assert "sem_seg_missing" in c


@pytest.mark.parametrize("settings", MIDDLES, ids=lambda s: s["format"])
def test_outlines_through_the_middle_of_pixels_are_a_pixel_off(describe, settings):
    """Supervision writes OpenCV's contours, whose corners are the outermost pixels, not their edges."""
    a, b, _ = describe(settings).records("all")
    mask, expected = read_record_mask(a), read_mask(FILES / "masks" / "a.png")
    inside = cv2.erode(expected, np.ones((3, 3))) == cv2.dilate(expected, np.ones((3, 3)))
    np.testing.assert_array_equal(mask[inside], expected[inside])
    for name, record in (("a", a), ("b", b)):
        assert np.abs(np.array(stored_boxes(record)) - expected_boxes(name)).max() == 1
