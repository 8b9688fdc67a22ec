import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from helpers import forbid_host_sync

from wpl_d2.data import LabeledMapper, build_labeled_loader, seeded
from wpl_d2.data.loader import labeled_dataset, labeled_records
from wpl_d2.data.mappers import PasteMapper
from wpl_d2.frameworks.ael.copy_paste import copy_paste
from wpl_d2.structures import IGNORE


def classes(*ids):
    return torch.zeros(IGNORE + 1, dtype=torch.bool).index_fill_(0, torch.tensor(ids, dtype=torch.int64), True)


def image(fill, labels, **more):
    labels = torch.tensor(labels)
    return {"image": torch.full((3, *labels.shape), fill, dtype=torch.uint8), "sem_seg": labels, **more}


def pair():
    """A first image whose last column is padding, and a second one whose first row is."""
    first = image(10, [[0, 1, IGNORE], [2, IGNORE, IGNORE]], valid=torch.tensor([[True, True, False]] * 2))
    second = image(20, [[IGNORE] * 3, [1, 2, 1]], valid=torch.tensor([[False] * 3, [True] * 3]))
    return {**first, "paste": second}


def test_pixels_of_the_drawn_classes_move_with_all_that_is_known_of_them():
    item = pair()
    with forbid_host_sync():
        found = copy_paste(item, classes(1))
    assert found["sem_seg"].tolist() == [[0, 1, IGNORE], [1, IGNORE, 1]]
    assert found["image"].tolist() == [[[10, 10, 10], [20, 10, 20]]] * 3
    # What was padding is now an image.
    assert found["valid"].tolist() == [[True, True, False], [True, True, True]]
    assert item["sem_seg"][1].tolist() == [2, IGNORE, IGNORE]
    assert copy_paste(item, classes(1, 2))["sem_seg"].tolist() == [[0, 1, IGNORE], [1, 2, 1]]


@pytest.mark.parametrize("drawn", [[], [0]])
def test_nothing_is_pasted_of_classes_that_the_second_image_lacks(drawn):
    item = pair()
    found = copy_paste(item, classes(*drawn))
    assert all(torch.equal(found[key], item[key]) for key in ("image", "sem_seg", "valid"))


def test_an_item_without_a_second_image_stays():
    item = image(10, [[0, 1]], valid=torch.ones(1, 2, dtype=torch.bool))
    assert copy_paste(item, classes(0, 1)) is item


def test_boxes_of_pasted_objects_come_along_and_those_of_hidden_ones_stay():
    def instances(boxes, kinds):
        return Instances((2, 3), gt_boxes=Boxes(torch.tensor(boxes)), gt_classes=torch.tensor(kinds))

    item = pair()
    item["instances"] = instances([[0.0, 1, 1, 2]], [0])  # class 2, which the pasted pixel at (1, 0) hides
    item["paste"]["instances"] = instances([[0.0, 1, 1, 2], [1.0, 1, 2, 2], [2.0, 1, 3, 2]], [1, 0, 1])
    found = copy_paste(item, classes(1), object_classes=torch.tensor([2, 1]))["instances"]
    assert found.gt_boxes.tensor.tolist() == [[0, 1, 1, 2], [0, 1, 1, 2], [2, 1, 3, 2]]
    assert found.gt_classes.tolist() == [0, 1, 1]
    assert len(copy_paste(item, classes(), torch.tensor([2, 1]))["instances"]) == 1


def test_the_second_image_is_a_sample_of_the_list_in_a_view_of_its_own(tree):
    cfg = tree.cfg("INPUT.PASTE.PROB", 0.5, "INPUT.PASTE.SCALE_RANGE", (0.2, 0.3), "INPUT.SCALE_RANGE", (1.0, 1.0))
    dataset = labeled_dataset(cfg)
    samples = [dataset[counter] for counter in range(60)]
    seconds = [sample["paste"] for sample in samples if "paste" in sample]
    assert 18 < len(seconds) < 42
    assert {second["image_id"] for second in seconds} == {f"labeled{i}" for i in range(3)}
    for second in seconds:
        assert second["image"].shape == (3, 40, 48)
        assert second["sem_seg"].shape == second["valid"].shape == (40, 48)
        height, width = second["valid"].any(1).sum(), second["valid"].any(0).sum()
        assert 10 <= height <= 15 and 12 <= width <= 18
        assert (second["sem_seg"][~second["valid"]] == IGNORE).all()
    assert all(sample["valid"].all() for sample in samples)


@pytest.mark.parametrize(("balanced", "mean", "smaller"), [(True, 1.025, 0.5), (False, 1.05, 0.9 / 1.9)])
def test_the_second_image_is_scaled_as_the_first_is_but_in_its_own_range(tree, balanced, mean, smaller):
    # Published for AEL: balanced, from 0.1 to 2, and so 1.025 in the mean.
    cfg = tree.cfg("INPUT.SCALE_BALANCED", balanced, "INPUT.PASTE.PROB", 1.0, "INPUT.PASTE.SCALE_RANGE", (0.1, 2.0))
    (record,) = labeled_records(cfg)[:1]
    mapper = PasteMapper(cfg, [record])
    np.random.seed(0)
    factors = np.array([mapper.second.view.draw((1000, 600)).resized[0] / 1000 for _ in range(4000)])
    assert 0.1 <= factors.min() < 0.11 and 1.99 < factors.max() <= 2.0
    assert factors.mean() == pytest.approx(mean, abs=0.02)
    assert (factors < 1).mean() == pytest.approx(smaller, abs=0.02)


def test_a_range_of_the_second_image_that_cannot_be_balanced_is_named(tree):
    cfg = tree.cfg("INPUT.SCALE_BALANCED", True, "INPUT.PASTE.PROB", 1.0, "INPUT.PASTE.SCALE_RANGE", (0.1, 0.5))
    with pytest.raises(ValueError, match=r"1 is not inside INPUT\.PASTE\.SCALE_RANGE \(0.1, 0.5\); widen that"):
        labeled_dataset(cfg)


def test_the_first_image_is_what_it_is_without_a_second_one(tree):
    cfg = tree.cfg("INPUT.PASTE.PROB", 1.0, "INPUT.PASTE.SCALE_RANGE", (1.0, 1.0), "MODEL.DETECTOR.MODE", "shared")
    records = labeled_records(cfg)
    with seeded(4):
        plain = LabeledMapper(cfg)(records[0])
    with seeded(4):
        found = PasteMapper(cfg, records)(records[0])
    assert torch.equal(plain["image"], found["image"])
    assert len(found["paste"]["instances"].gt_boxes) > 0


def test_the_second_image_does_not_depend_on_the_workers(tree):
    def drawn(workers):
        loader = iter(build_labeled_loader(tree.cfg("INPUT.PASTE.PROB", 0.7, "DATALOADER.NUM_WORKERS", workers)))
        items = [item for _ in range(3) for item in next(loader)]
        return [item["paste"]["image"].numpy() if "paste" in item else None for item in items]

    alone, two = drawn(0), drawn(2)
    assert any(second is not None for second in alone)
    assert all(np.array_equal(a, b) if a is not None else b is None for a, b in zip(alone, two, strict=True))
