"""Files that the tools' own libraries wrote (`make_files.py`), against what they were told to write."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO

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


def test_crowds_have_no_box_unless_all_are_crowds(describe):
    """Datumaro, as CVAT, calls each mask a crowd; in a file with other annotations they are what COCO means by it."""
    content = json.loads((FILES / "coco_uncompressed.json").read_text())
    assert all(annotation["iscrowd"] for annotation in content["annotations"])  # whose boxes are tested above
    a, b, _ = describe({"format": "coco", "files": "coco_crowd.json"}).records("all")
    np.testing.assert_array_equal(read_record_mask(a), read_mask(FILES / "masks" / "a.png"))
    assert stored_boxes(a) == [box for box in expected_boxes("a") if box[0] != 1]
    assert stored_boxes(b) == expected_boxes("b")


def test_layouts_of_roboflow(describe, tmp_path):
    """Images beside `_annotations.coco.json`, with names of its own; `images` and `labels` of parts, and data.yaml."""
    description = describe({"format": "coco", "files": "roboflow_coco/train/_annotations.coco.json"})
    train = tmp_path / "data/roboflow_coco/train"
    for name in "ab":
        shutil.copy(FILES / "images" / f"{name}.png", train / f"{name}_png.rf.0123456789abcdef.png")
    ids = [f"roboflow_coco/train/{name}_png.rf.0123456789abcdef" for name in "ab"]
    (tmp_path / "data/all.txt").write_text("".join(f"{name}.png\n" for name in ids))
    for name, record in zip("ab", description.records("all"), strict=True):
        np.testing.assert_array_equal(read_record_mask(record), read_mask(FILES / "masks" / f"{name}.png"))

    shutil.copytree(FILES / "images", tmp_path / "data/roboflow_yolo/train/images")
    description = describe({"format": "yolo", "names": "roboflow_yolo/data.yaml"})
    (tmp_path / "data/all.txt").write_text("".join(f"roboflow_yolo/train/images/{name}.png\n" for name in "abc"))
    a, b, c = description.records("all")
    for name, record in (("a", a), ("b", b)):
        np.testing.assert_array_equal(read_record_mask(record), read_mask(FILES / "masks" / f"{name}.png"))
    assert "sem_seg_missing" in c


def test_coco128(shared, tmp_path, monkeypatch):
    """Against COCO's own tools; photos without an annotation are labeled, with nothing in them."""
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))
    tools = COCO(shared / "coco128/annotations/instances_train2017.json")
    names = [category["name"] for category in tools.loadCats(tools.getCatIds())]
    content = {
        "name": "coco128",
        "root": str(shared / "coco128"),
        "image": "train2017/{id}.jpg",
        "classes": ["background", *names],
        "objects": names,
        "labels": {"format": "coco", "files": "annotations/instances_train2017.json", "uncovered": "background"},
        "lists": {"all": str(tmp_path / "all.txt")},
    }
    images = sorted(tools.imgs.values(), key=lambda image: -len(tools.getAnnIds(image["id"])))
    images = [*images[:8], *images[-3:]]
    (tmp_path / "all.txt").write_text("".join(f"{Path(image['file_name']).stem}\n" for image in images))
    (tmp_path / "coco128.yaml").write_text(yaml.safe_dump(content))
    for image, record in zip(images, load_description(tmp_path / "coco128.yaml").records("all"), strict=True):
        annotations = tools.loadAnns(tools.getAnnIds(image["id"]))
        drawn = [(tools.annToMask(a), 1 + names.index(tools.cats[a["category_id"]]["name"]), a) for a in annotations]
        expected = np.zeros((image["height"], image["width"]), np.uint8)
        for mask, class_id, _ in sorted(drawn, key=lambda item: -int(item[0].sum())):
            expected[mask == 1] = class_id
        np.testing.assert_array_equal(read_record_mask(record), expected)
        boxes = []
        for mask, class_id, annotation in drawn:
            rows, columns = np.nonzero(mask)
            if len(rows) and not annotation["iscrowd"]:
                boxes.append([class_id, columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert stored_boxes(record) == sorted(boxes)
