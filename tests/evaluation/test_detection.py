import pytest
import torch
from detectron2.structures import Boxes, Instances

from wpl_d2.data import EvalDataset
from wpl_d2.evaluation import build_box_evaluator
from wpl_d2.utils.errors import InputError

SIZES = [(40, 50), (64, 64), (33, 70)]
TRUTH = torch.tensor([[5.0, 4, 20, 22], [25, 10, 45, 30]])  # car and dog of every image


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))


def evaluate(name, folder, boxes, classes, lenient=None):
    dataset = lenient or EvalDataset(name=name)
    evaluator = build_box_evaluator(dataset, folder)
    evaluator.reset()
    for record, size in zip(dataset.records, SIZES, strict=True):
        if record["file_name"] in dataset.left_out:
            continue
        found = Instances(size, pred_boxes=Boxes(boxes), scores=torch.ones(len(boxes)), pred_classes=classes)
        evaluator.process([record], [{"instances": found}])
    return evaluator.evaluate()["bbox"]


def test_true_boxes_score_full(tiny, tmp_path):
    results = evaluate(tiny, tmp_path / "out", TRUTH, torch.tensor([0, 1]))
    assert results["AP"] == pytest.approx(100)
    assert results["AP-car"] == results["AP-dog"] == pytest.approx(100)


def test_swapped_classes_score_nothing(tiny, tmp_path):
    assert evaluate(tiny, tmp_path / "out", TRUTH, torch.tensor([1, 0]))["AP"] == 0


def test_one_class_right_scores_half_in_another_folder(tiny, tmp_path):
    evaluate(tiny, tmp_path / "first", TRUTH, torch.tensor([0, 1]))
    moved = TRUTH + torch.tensor([[0.0], [40.0]])
    results = evaluate(tiny, tmp_path / "second", moved, torch.tensor([0, 1]))
    assert results["AP"] == pytest.approx(50)
    assert (tmp_path / "second" / f"{tiny}_boxes.json").is_file()


def test_small_components_are_no_objects(tiny, tmp_path):
    evaluator = build_box_evaluator(EvalDataset(name=tiny, min_box_area=300), tmp_path)  # a car has 270 pixels
    names = {a["category_id"] for a in evaluator._coco_api.dataset["annotations"]}
    assert names == {1}


def test_an_image_that_is_left_out_has_no_boxes_to_miss(tiny, tmp_path):
    dataset = EvalDataset(name=tiny, lenient=True)
    dataset.leave_out(dataset.records[1], InputError("cannot be read"))
    results = evaluate(tiny, tmp_path / "out", TRUTH, torch.tensor([0, 1]), dataset)
    assert results["AP"] == pytest.approx(100)


@pytest.mark.parametrize("gone", [True, False])
def test_an_image_without_a_readable_mask_is_left_out_or_an_error(tiny, tmp_path, gone):
    evaluate(tiny, tmp_path / "out", TRUTH, torch.tensor([0, 1]))  # its boxes are kept
    mask = tmp_path / "masks/1.png"
    mask.unlink() if gone else mask.write_bytes(b"broken")
    for _ in range(2):
        dataset = EvalDataset(name=tiny, lenient=True)
        results = evaluate(tiny, tmp_path / "out", TRUTH, torch.tensor([0, 1]), dataset)
        assert results["AP"] == pytest.approx(100)
        assert list(dataset.left_out) == [str(tmp_path / "images/1.png")]
    with pytest.raises(InputError, match=r"1\.png"):
        build_box_evaluator(EvalDataset(name=tiny), tmp_path / "out")
