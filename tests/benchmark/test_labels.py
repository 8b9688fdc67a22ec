import os

import pytest

from wpl_d2.benchmark.labels import compare_labels


def test_reading_is_timed_beside_index_masks(tree):
    before = os.environ["WPL_D2_CACHE"]
    found = compare_labels(tree.cfg(), 2)
    assert (found["label_format"], found["masks"]) == ("color_masks", 2)
    assert found["read_to_index"] == pytest.approx(found["read_mask_s"] / found["read_index_mask_s"])
    assert found["convert_mask_s"] > 0 and os.environ["WPL_D2_CACHE"] == before


def test_labels_of_another_format_are_measured_as_they_are(tree):
    tree.describe(labels={"format": "masks"})
    assert compare_labels(tree.cfg(), 9)["label_format"] == "masks"
