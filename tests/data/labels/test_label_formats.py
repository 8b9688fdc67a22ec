"""Every registered format against the same labels as index masks."""

import numpy as np
import pytest
from PIL import Image

from wpl_d2.data import load_description
from wpl_d2.data.image_io import read_mask, read_record_mask

LISTS = ("labeled", "unlabeled", "val")


def store_as_masks(tree, masks):
    """Other values, and no class where none is listed."""
    for file in masks:
        values = np.array([0, 255, 7], dtype=np.uint8)[np.minimum(mask := read_mask(file), 2)]
        values[mask == 255] = 90
        Image.fromarray(values).save(file)
    return {"values": {0: "ground", 255: "box", 7: "ball", 90: "ignore"}}


STORE = {"masks": store_as_masks}


@pytest.mark.parametrize("name", STORE)
def test_labels_are_the_same_as_index_masks(tree, name):
    before = {list_: [read_record_mask(r) for r in load_description(tree.yaml).records(list_)] for list_ in LISTS}
    files = sorted((tree.root / "masks").iterdir())
    tree.describe(labels={"format": name, **STORE[name](tree, files)})
    for list_, masks in before.items():
        records = load_description(tree.yaml).records(list_)
        assert all(map(np.array_equal, (read_record_mask(record) for record in records), masks))
