import json

import numpy as np
import pytest
from helpers import CLASSES

from wpl_d2.data import attach_component_boxes, load_description
from wpl_d2.data.dataset_report import report_dataset
from wpl_d2.data.image_io import read_record_mask
from wpl_d2.utils.errors import InputError

IDS = {256: 1, 70000: 1, 3: 2, 4: 1}
"""Segments and their class ids: two boxes that touch, a ball, and a crowd of boxes."""


def segments():
    ids = np.zeros((50, 60), dtype=np.int32)
    ids[:20, :10], ids[:20, 10:30], ids[25:40, 5:20], ids[45:, 40:] = IDS
    return ids


def colors(ids):
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=2).astype(np.uint8)


@pytest.fixture
def panoptic(tree):
    """The tree, of which a single image is labeled; a function that changes the content of its JSON."""
    tree.write_mask("labeled0", colors(segments()))
    found = [{"id": key, "category_id": class_id, "iscrowd": int(key == 4)} for key, class_id in IDS.items()]
    content = {
        "images": [{"id": 1, "file_name": "labeled0.png"}],
        "annotations": [{"image_id": 1, "file_name": "labeled0.png", "segments_info": found}],
        "categories": [{"id": class_id, "name": name} for class_id, name in enumerate(CLASSES)],
    }
    labels = {"format": "coco_panoptic", "files": "panoptic.json", "masks": "masks", "uncovered": "ground"}
    tree.describe(mask=None, labels=labels)

    def write(**changes):
        (tree.root / "panoptic.json").write_text(json.dumps(content | changes))
        return tree

    write()
    return write


def record_of(tree):
    return load_description(tree.yaml).records("labeled")[0]


def test_boxes_are_those_of_the_segments_and_crowds_have_none(panoptic):
    tree = panoptic()
    record = record_of(tree)
    (attached,) = attach_component_boxes([record], (2, 1), 90)
    assert attached["boxes"].tolist() == [[0, 0, 10, 20], [10, 0, 30, 20], [5, 25, 20, 40]]
    assert attached["box_classes"].tolist() == [1, 1, 0]
    assert np.array_equal(read_record_mask(record), np.vectorize(IDS.get)(segments(), 0))
    boxes = {row[1]: row[4] for row in report_dataset(load_description(tree.yaml), 90)._class_rows() if len(row) > 4}
    assert boxes == {"box": 2, "ball": 1}


def test_a_png_that_changed_is_read_anew_and_one_that_is_gone_is_named(panoptic):
    tree = panoptic()
    record_of(tree)
    tree.write_mask("labeled0", colors(np.full((50, 60), 3)))
    assert (read_record_mask(record_of(tree)) == 2).all()
    tree.mask("labeled0").unlink()
    assert record_of(tree)["sem_seg_missing"] == str(tree.mask("labeled0"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [{"id": 1, "name": "box"}]}, r"panoptic\.json: .* category id 2, which is not in 'categories'"),
        ({"images": []}, r"panoptic\.json: has segments of the image id 1, which is not in 'images'; add it"),
        ({"images": [{"id": 1}]}, r"panoptic\.json: is not as COCO writes it \(KeyError: 'file_name'\)"),
        (
            {"annotations": [{"image_id": 1, "file_name": "labeled0.png", "segments_info": []}]},
            r"masks/labeled0\.png: shows segments that .*panoptic\.json does not list, such as \[3, 4, 256, 70000\]",
        ),
    ],
)
def test_bad_files_are_refused(panoptic, changes, message):
    with pytest.raises(InputError, match=message):
        read_record_mask(record_of(panoptic(**changes)))
