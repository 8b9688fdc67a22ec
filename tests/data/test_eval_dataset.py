import pytest
from helpers import write_detection_cache

from wpl_d2.data import EvalDataset, boxes_from_mask, read_mask
from wpl_d2.data.detection_cache import DetectionCache
from wpl_d2.utils.errors import InputError


@pytest.fixture
def name(tree):
    tree.cfg()
    return f"{tree.name}_val"


def test_true_boxes_are_those_of_the_masks_in_semantic_classes(tree, name):
    dataset = EvalDataset(name=name)
    assert list(dataset.true_boxes) == ["val0", "val1"]
    for image, (boxes, classes) in dataset.true_boxes.items():
        expected = boxes_from_mask(read_mask(tree.mask(image)), dataset.object_ids)
        assert boxes.tolist() == expected[0].tolist() and classes.tolist() == expected[1].tolist()
        assert set(classes.tolist()) == set(dataset.object_ids)


@pytest.mark.parametrize("what", ["image", "mask"])
def test_what_cannot_be_read_is_left_out_of_a_lenient_data_set_and_else_an_error(tree, name, what):
    getattr(tree, what)("val0").write_bytes(b"broken")

    def read(dataset):
        boxes = dataset.true_boxes if what == "mask" else {"val1": None}
        return list(boxes), [item["image_id"] for (item,) in dataset.loader()]

    dataset = EvalDataset(name=name, lenient=True)
    assert read(dataset) == (["val1"], ["val1"])
    assert list(dataset.left_out) == [str(tree.image("val0"))]
    with pytest.raises(InputError, match=r"val0\.png: cannot be read"):
        read(EvalDataset(name=name))


def test_items_have_the_cached_detections_of_their_image(tree, name):
    path = write_detection_cache(tree.root / "boxes.npz", ["val0", "val1"], [[5, 5, 30, 30]], [0.5], [2])
    items = [item for (item,) in EvalDataset(name=name).loader(DetectionCache.load(path))]
    assert [item["detections"].boxes.tolist() for item in items] == [[[5, 5, 30, 30]]] * 2
    assert [item["detections"].classes.tolist() for item in items] == [[2]] * 2
