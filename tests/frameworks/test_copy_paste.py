import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from helpers import forbid_host_sync

from wpl_d2.data import LabeledMapper, build_labeled_loader, seeded
from wpl_d2.data.loader import labeled_dataset, labeled_records
from wpl_d2.data.mappers import PasteMapper
from wpl_d2.frameworks.ael.copy_paste import copy_paste, sample_component_boxes
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


def pixels(cells):
    """Each of the (h, w) cells as 4 x 4 pixels, on which it is then seen again."""
    return cells.repeat_interleave(4, dim=-2).repeat_interleave(4, dim=-1)


def test_every_large_part_is_drawn_and_no_small_one():
    cells = torch.full((1, 20, 30), IGNORE)
    cells[0, 2:8, 3:10] = 1  # 42 cells
    cells[0, 12:18, 15:22] = 1
    cells[0, 18, 21:25] = 1  # belongs to the one above it
    cells[0, 4:6, 25:28] = 1  # 6 cells
    cells[0, 10:, :5] = 2
    labels, samples = pixels(cells).expand(50, -1, -1), torch.linspace(0, 0.999, 50)
    with forbid_host_sync():
        boxes, found = sample_component_boxes(labels, torch.ones(50, dtype=torch.int64), samples, 0.05)
    assert found.all()
    edges = [(*np.argwhere(box)[0], *(np.argwhere(box)[-1] + 1)) for box in boxes.numpy()]
    assert set(edges) == {(8, 12, 32, 40), (48, 60, 76, 100)}
    for box, (top, left, bottom, right) in zip(boxes, edges, strict=True):
        assert box.sum() == (bottom - top) * (right - left)
    assert 20 <= boxes[:, 8, 12].sum() <= 30


def test_each_image_has_a_class_of_its_own():
    cells = torch.zeros(1, 5, 6, dtype=torch.int64)
    cells[0, 2:, 3:] = 1
    boxes, found = sample_component_boxes(pixels(cells).expand(3, -1, -1), torch.tensor([1, 2, 0]), torch.rand(3), 0.05)
    assert found.tolist() == [True, False, True]
    assert torch.equal(boxes[0], pixels(cells)[0] == 1)
    assert not boxes[1].any() and boxes[2].all()


@pytest.mark.parametrize("size", [(513, 513), (49, 66)])
def test_a_crop_that_four_does_not_divide(size):
    labels = torch.zeros(1, *size, dtype=torch.int64)
    labels[0, 13:34, 9:] = 1
    boxes, _ = sample_component_boxes(labels, torch.tensor([1]), torch.rand(1), 0.0)
    (top, left), (bottom, right) = np.argwhere(boxes[0].numpy())[[0, -1]]
    assert abs(top - 13) <= 4 and abs(bottom - 33) <= 4 and abs(left - 9) <= 4 and right == size[1] - 1


@pytest.mark.parametrize("kind", [-1, 0, 3])
def test_a_class_without_a_large_part_has_no_box(kind):
    cells = torch.full((2, 20, 30), IGNORE)
    cells[:, :2, :2] = 3
    boxes, found = sample_component_boxes(pixels(cells), torch.tensor([kind, kind]), torch.rand(2), 0.05)
    assert not found.any() and not boxes.any()


def test_a_part_must_cover_more_than_the_least_area():
    cells = torch.zeros(1, 10, 10, dtype=torch.int64)
    cells[0, :2, :5] = 1
    for area, expected in ((0.0999, True), (0.1, False)):
        assert sample_component_boxes(pixels(cells), torch.tensor([1]), torch.zeros(1), area)[1].item() == expected
