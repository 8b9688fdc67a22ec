import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances

from wpl_d2.evaluation import build_box_evaluator
from wpl_d2.evaluation.left_out import NOTHING, LeftOut
from wpl_d2.utils.errors import InputError

SIZES = [(40, 50), (64, 64), (33, 70)]
TRUTH = torch.tensor([[5.0, 4, 20, 22], [25, 10, 45, 30]])  # car and dog of every image


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))


def evaluate(name, folder, boxes, classes, left_out=NOTHING):
    evaluator = build_box_evaluator(name, folder, left_out=left_out)
    evaluator.reset()
    for record, size in zip(DatasetCatalog.get(name), SIZES, strict=True):
        if record["file_name"] in left_out.reasons:
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
    evaluator = build_box_evaluator(tiny, tmp_path, min_area=300)  # a car has 270 pixels
    names = {a["category_id"] for a in evaluator._coco_api.dataset["annotations"]}
    assert names == {1}


def test_an_image_that_is_left_out_has_no_boxes_to_miss(tiny, tmp_path):
    left_out = LeftOut()
    left_out.note({"file_name": str(tmp_path / "images/1.png")}, InputError("cannot be read"))
    results = evaluate(tiny, tmp_path / "out", TRUTH, torch.tensor([0, 1]), left_out)
    assert results["AP"] == pytest.approx(100)


@pytest.mark.parametrize("gone", [True, False])
def test_an_image_without_a_readable_mask_is_left_out_or_an_error(tiny, tmp_path, gone):
    evaluate(tiny, tmp_path / "out", TRUTH, torch.tensor([0, 1]))  # its boxes are kept
    mask = tmp_path / "masks/1.png"
    mask.unlink() if gone else mask.write_bytes(b"broken")
    left_out = LeftOut()
    for _ in range(2):
        results = evaluate(tiny, tmp_path / "out", TRUTH, torch.tensor([0, 1]), left_out)
        assert results["AP"] == pytest.approx(100)
        assert list(left_out.reasons) == [str(tmp_path / "images/1.png")]
    with pytest.raises(InputError, match=r"1\.png"):
        build_box_evaluator(tiny, tmp_path / "out")
