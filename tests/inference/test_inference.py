"""From config to inference, on a small real model."""

import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import inference_context
from helpers import SMALL, SMALL_DETECTOR
from PIL import Image

import wpl_d2
from wpl_d2.data import EvalDataset, read_mask
from wpl_d2.evaluation import build_evaluator
from wpl_d2.evaluation.evaluator import evaluate
from wpl_d2.evaluation.sem_seg import SemSegConfusionEvaluator, sem_seg_metrics
from wpl_d2.inference.build import Inference, build_inference, build_predict
from wpl_d2.inference.sliding_window import SlidingWindow
from wpl_d2.utils.errors import InputError

KEYS = "TEST.INFERENCE."


def slide(*more):
    return [KEYS + "MODE", "slide", KEYS + "CROP_SIZE", (32, 32), KEYS + "STRIDE", (21, 21), *more]


@pytest.fixture
def model(tree):
    torch.manual_seed(0)
    return wpl_d2.build_model(tree.cfg(*SMALL, *SMALL_DETECTOR)).eval()


def item(rows=50, columns=60, **output):
    image = torch.randint(0, 256, (3, rows, columns), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return {"image": image, **output}


def test_whole_image_is_what_the_model_does_by_itself(tree, model):
    assert build_inference(tree.cfg(*SMALL), model) is model


def test_segment_and_find_are_the_parts_of_the_models_own_answer(model):
    with torch.no_grad():
        (whole,) = model([item()])
        logits, (boxes,) = model.segment(item()["image"][None]), model.detect_images(item()["image"][None])
    torch.testing.assert_close(logits[0], whole["sem_seg"])
    torch.testing.assert_close(boxes.pred_boxes.tensor, whole["instances"].pred_boxes.tensor)


def test_one_window_over_the_image_is_the_models_own_answer(tree, model):
    opts = [KEYS + "CROP_SIZE", (50, 60), KEYS + "STRIDE", (50, 60), KEYS + "AVERAGE", "logit"]
    inference = build_inference(tree.cfg(*SMALL, *slide(*opts)), model)
    for request in (item(), item(height=80, width=97)):
        (found,) = inference([request])
        with torch.no_grad():
            (whole,) = model([request])
        torch.testing.assert_close(found["sem_seg"], whole["sem_seg"])
        torch.testing.assert_close(found["instances"].pred_boxes.tensor, whole["instances"].pred_boxes.tensor)
        torch.testing.assert_close(found["instances"].scores, whole["instances"].scores)


def test_output_has_the_size_asked_for(tree, model):
    inference = build_inference(tree.cfg(*SMALL, *slide()), model)
    first, second = inference([item(height=80, width=97), item(33, 70)])
    assert first["sem_seg"].shape == (3, 80, 97) and second["sem_seg"].shape == (3, 33, 70)
    assert first["instances"].image_size == (80, 97)


def test_keys_reach_the_windows(tree):
    opts = slide(KEYS + "BORDER", "truncate", KEYS + "AVERAGE", "logit", KEYS + "WINDOW_BATCH", 5)
    cfg = tree.cfg(*SMALL, *opts)

    def predict(images):
        return images

    assert build_predict(cfg, predict) == SlidingWindow(
        predict, (32, 32), (21, 21), "truncate", "logit", 5, tuple(cfg.MODEL.PIXEL_MEAN)
    )


def test_images_are_resized_before_they_are_cut_into_windows(tree):
    seen = []

    def predict(images):
        seen.append(tuple(images.shape[-2:]))
        return images[:, :2]

    segment = build_predict(tree.cfg(*slide(KEYS + "SHORTER_SIDE", 40, KEYS + "AVERAGE", "logit")), predict)
    image = torch.linspace(0, 255, 60).expand(1, 3, 20, 60)
    assert torch.allclose(segment(image), image[:, :2], atol=2.2)
    assert seen == [(32, 32)] * 2 * 6  # of an image of 40 x 120


def test_everything_at_once(tree):
    """Flip and scales around windows: each of the 2 x 2 views is seen in all of its windows."""
    seen = []

    def predict(images):
        seen.append(len(images))
        return images.mean(1, keepdim=True).repeat(1, 3, 1, 1)

    cfg = tree.cfg(*SMALL, *slide(KEYS + "FLIP", True, KEYS + "SCALES", (1.0, 2.0), KEYS + "WINDOW_BATCH", 4))
    assert build_predict(cfg, predict)(torch.rand(1, 3, 50, 60)).shape == (1, 3, 50, 60)
    windows = [math.ceil((50 * s - 32) / 21 + 1) * math.ceil((60 * s - 32) / 21 + 1) for s in (1, 2)]
    assert sum(seen) == 2 * sum(windows) and max(seen) == 4


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODE", "slid", "did you mean slide"),
        ("BORDER", "reflect", "shift, truncate"),
        ("AVERAGE", "logits", "did you mean logit"),
        ("CROP_SIZE", (0, 8), "give .height, width."),
        ("STRIDE", (33, 8), "leaves gaps"),
        ("WINDOW_BATCH", 0, "give a whole number, 1 or more"),
        ("SCALES", (), "give one factor"),
    ],
)
def test_wrong_values_are_named(tree, key, value, message):
    cfg = tree.cfg(*SMALL, *slide())
    cfg.TEST.INFERENCE[key] = value
    with pytest.raises(InputError, match=rf"TEST\.INFERENCE\.{key}: .*{message}"):
        build_predict(cfg, lambda images: images)


def test_wrapping_keeps_the_mode(tree, model):
    cfg = tree.cfg(*SMALL, *slide())
    inference = build_inference(cfg, model.train())
    with inference_context(inference):
        assert not model.training
    assert isinstance(inference, Inference) and model.training


def test_evaluation_goes_the_configured_way(tree):
    """The numbers are those of the same predictions, made and counted by hand."""
    cfg = tree.cfg(*SMALL, *slide())
    torch.manual_seed(0)
    framework = wpl_d2.build_framework(cfg).eval()
    results = evaluate(cfg, framework)["sem_seg"]
    model = next(iter(framework.eval_models().values()))
    assert results == pytest.approx(_by_hand(cfg, model, cfg.DATASETS.TEST[0]), nan_ok=True)
    cfg.TEST.INFERENCE.MODE = "whole"
    assert evaluate(cfg, framework)["sem_seg"]["pACC"] != results["pACC"]


def _by_hand(cfg, model, dataset):
    inference, evaluator = build_inference(cfg, model), SemSegConfusionEvaluator(EvalDataset(name=dataset))
    for record in DatasetCatalog.get(dataset):
        image = torch.from_numpy(np.asarray(Image.open(record["file_name"])).copy()).permute(2, 0, 1)
        evaluator.process([record], inference([{"image": image}]))
    return evaluator.evaluate()["sem_seg"]


def test_only_the_centre_is_judged(tree):
    cfg = tree.cfg(*SMALL, KEYS + "MODE", "crop", KEYS + "CROP_SIZE", (20, 80))
    evaluator = build_evaluator(cfg, EvalDataset(cfg, name=cfg.DATASETS.TEST[0]), tree.root)
    evaluator.reset()
    for record in DatasetCatalog.get(cfg.DATASETS.TEST[0]):
        mask = torch.tensor(read_mask(record["sem_seg_file_name"])).long()
        scores = torch.nn.functional.one_hot(mask.clamp(max=2), 3).permute(2, 0, 1).float()
        scores[:, :15], scores[:, 35:] = 0, 0  # 50 rows: the center is 15 to 34
        scores[0, :15], scores[0, 35:] = 1, 1
        evaluator.process([record], [{"sem_seg": scores}])
    results = evaluator.evaluate()["sem_seg"]
    assert results["pACC"] == results["IoU-box"] == results["IoU-ball"] == 100
    cfg.TEST.EVALUATOR = "detectron2"
    with pytest.raises(InputError, match=r"TEST\.EVALUATOR.*whole image"):
        build_evaluator(cfg, EvalDataset(cfg, name=cfg.DATASETS.TEST[0]), tree.root)


@pytest.mark.parametrize("crop", [(20, 80), (64, 64), (51, 61), (90, 30), (40, 40)])
@pytest.mark.parametrize("padding", [True, False])
def test_padding_is_judged_as_class_0_where_it_is_asked_for(tree, crop, padding):
    """As U2PL's and AEL's code, which pads image and mask to the crop before it takes the center of both."""
    cfg = tree.cfg(*SMALL, KEYS + "MODE", "crop", KEYS + "CROP_SIZE", crop, KEYS + "JUDGE_PADDING", padding)
    torch.manual_seed(0)
    framework = wpl_d2.build_framework(cfg).eval()
    model = next(iter(framework.eval_models().values()))
    counts = np.zeros((3, 3), dtype=np.int64)
    for record in DatasetCatalog.get(cfg.DATASETS.TEST[0]):
        sides = [max(0, part - length) for part, length in zip(crop, (50, 60), strict=True)]
        pad = [(side // 2, side - side // 2) for side in sides]
        image = np.asarray(Image.open(record["file_name"])).astype(np.float32)
        image = np.stack([np.pad(image[..., c], pad, constant_values=cfg.MODEL.PIXEL_MEAN[c]) for c in range(3)])
        mask = np.pad(read_mask(record["sem_seg_file_name"]), pad, constant_values=0 if padding else 255)
        top, left = ((length - part) // 2 for length, part in zip(mask.shape, crop, strict=True))
        rows, columns = slice(top, top + crop[0]), slice(left, left + crop[1])
        with torch.no_grad():
            found = model.segment(torch.from_numpy(image[None, :, rows, columns]))[0].argmax(dim=0).numpy()
        mask = mask[rows, columns]
        assert mask.shape == crop
        np.add.at(counts, (mask[mask != 255], found[mask != 255]), 1)
    expected = sem_seg_metrics(counts, ["a", "b", "c"])
    results = evaluate(cfg, framework)["sem_seg"]
    assert [results[key] for key in ("mIoU", "pACC", "fwIoU")] == [expected[key] for key in ("mIoU", "pACC", "fwIoU")]


def test_boxes_are_those_of_the_image_where_its_padding_is_judged(tree, model):
    cfg = tree.cfg(*SMALL, KEYS + "MODE", "crop", KEYS + "CROP_SIZE", (70, 40), KEYS + "JUDGE_PADDING", True)
    (found,) = build_inference(cfg, model)([item()])
    (whole,) = model([item()])
    assert found["sem_seg"].shape == (3, 70, 60)
    torch.testing.assert_close(found["instances"].pred_boxes.tensor, whole["instances"].pred_boxes.tensor)


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_padding_that_nobody_judges_cannot_be_asked_for(tree, mode):
    cfg = tree.cfg(*SMALL, KEYS + "MODE", mode, KEYS + "JUDGE_PADDING", True)
    with pytest.raises(InputError, match=rf"JUDGE_PADDING: True, but MODE {mode} pads nothing .*; set MODE crop, or"):
        build_evaluator(cfg, EvalDataset(cfg, name=cfg.DATASETS.TEST[0]), tree.root)


def test_files_for_a_benchmark_server(tree, tmp_path):
    for name in ("val0", "val1"):
        tree.mask(name).unlink()  # the server keeps them
    tree.describe(dataset_ids=[7, 33, 23])
    cfg = tree.cfg(*SMALL, *SMALL_DETECTOR, "TEST.EVALUATOR", "submission", "OUTPUT_DIR", str(tmp_path / "out"))
    torch.manual_seed(0)
    framework = wpl_d2.build_framework(cfg).eval()
    assert evaluate(cfg, framework) == {}
    (name, model) = next(iter(framework.eval_models().items()))
    folder = tmp_path / "out/inference" / cfg.DATASETS.TEST[0] / name / "label_ids"
    assert sorted(path.name for path in folder.iterdir()) == ["val0.png", "val1.png"]
    with Image.open(folder / "val0.png") as written, Image.open(tree.image("val0")) as image, torch.no_grad():
        assert written.mode == "L" and written.size == image.size
        labels = model.segment(torch.tensor(np.asarray(image)).permute(2, 0, 1)[None])[0].argmax(0)
        np.testing.assert_array_equal(np.asarray(written), np.array([7, 33, 23])[labels])


@pytest.mark.parametrize("ids", [None, [0, 1, 256]])
def test_submissions_need_ids_that_fit(tree, ids):
    tree.describe(dataset_ids=ids)
    cfg = tree.cfg(*SMALL, "TEST.EVALUATOR", "submission")
    with pytest.raises(InputError, match=r"TEST\.EVALUATOR.*'dataset_ids' in .*data\.yaml"):
        build_evaluator(cfg, EvalDataset(cfg, name=cfg.DATASETS.TEST[0]), tree.root)
