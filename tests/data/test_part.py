"""A part of a data set is a fixed choice of its images with masks."""

import itertools

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from wpl_d2.data import EvalDataset, load_description, register, register_part
from wpl_d2.utils.errors import InputError


def ids(name):
    return [record["image_id"] for record in DatasetCatalog.get(name)]


@pytest.fixture
def unlabeled(tree):
    names = [f"unlabeled{i}" for i in range(5)]
    tree.mask("unlabeled3").unlink()
    register(load_description(tree.yaml))
    return f"{tree.name}_unlabeled", names[:3] + names[4:]


def test_a_part_is_always_the_same_and_holds_the_smaller_ones(unlabeled):
    name, masked = unlabeled
    parts = [ids(register_part(name, count)) for count in (1, 2, 3, 4)]
    assert [len(part) for part in parts] == [1, 2, 3, 4]
    for small, large in itertools.pairwise(parts):
        assert set(small) < set(large)
    assert parts[-1] == masked
    assert all(part == sorted(part) for part in parts)
    # In another process too, whatever was drawn there before.
    DatasetCatalog.remove(f"{name}_part_2")
    assert ids(register_part(name, 2)) == parts[1]
    assert register_part(name, 2) == f"{name}_part_2"


def test_parts_of_two_lists_are_drawn_apart(tmp_path):
    records = [{"file_name": f"{i}.png", "image_id": str(i), "sem_seg_file_name": "m.png"} for i in range(40)]
    names = [f"{tmp_path.name}_{letter}" for letter in "ab"]
    for name in names:
        DatasetCatalog.register(name, lambda: records)
    chosen = [ids(register_part(name, 10)) for name in names]
    assert chosen[0] != chosen[1]


def test_more_images_than_there_are_give_all_that_have_masks(unlabeled):
    name, masked = unlabeled
    assert ids(register_part(name, 100)) == masked


def test_a_part_is_read_as_its_data_set(unlabeled, tree):
    name, _ = unlabeled
    part = register_part(name, 2)
    for key in ("stuff_classes", "object_ids", "stuff_colors", "mask_ignore"):
        assert MetadataCatalog.get(part).get(key) == MetadataCatalog.get(name).get(key)
    assert len(list(EvalDataset(tree.cfg(), name=part).loader())) == 2
    # What one reader writes into a dict is not seen by the next.
    DatasetCatalog.get(part)[0]["detections"] = "boxes"
    assert "detections" not in DatasetCatalog.get(part)[0]


@pytest.mark.parametrize("count", [0, -3])
def test_a_part_of_no_image_is_refused(unlabeled, count):
    with pytest.raises(InputError, match=f"a part of {count} images is empty; take at least 1"):
        register_part(unlabeled[0], count)


def test_a_list_without_masks_has_no_part_to_measure_on(tree):
    for i in range(5):
        tree.mask(f"unlabeled{i}").unlink()
    register(load_description(tree.yaml))
    with pytest.raises(InputError, match="_unlabeled: no image has a mask to measure on; add masks"):
        register_part(f"{tree.name}_unlabeled", 2)
