"""The evaluation of a real, untrained model, from config to numbers and to the preview picture."""

import itertools
import re
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation.testing import flatten_results_dict
from PIL import Image

import wpl_d2
from wpl_d2.data import EvalDataset, build_labeled_loader, register_part
from wpl_d2.engine import report_results
from wpl_d2.evaluation import build_evaluator, evaluate_pseudo_labels, filled_weigher
from wpl_d2.evaluation.evaluator import evaluate
from wpl_d2.utils.errors import InputError
from wpl_d2.visualization import render_preview
from wpl_d2.visualization.preview import CELL
from wpl_d2.weighting import PixelWeigher


@pytest.fixture
def cfg(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))
    cfg = wpl_d2.get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_timm_backbone"
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 4
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = cfg.MODEL.SEM_SEG_HEAD.ASPP_CHANNELS = 16
    cfg.MODEL.DETECTOR.MODE = "shared"
    cfg.MODEL.DETECTOR.CHANNELS = 8
    cfg.MODEL.DETECTOR.CLASSES = (1, 2)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
    cfg.WEIGHTING.ENABLED = cfg.RPPI.ENABLED = True
    cfg.RPPI.BOX_SCORE, cfg.RPPI.CONF, cfg.FRAMEWORK.THRESHOLD = 0.2, 0.2, 0.2
    cfg.DATASETS.TEST = cfg.TEST.PSEUDO_LABELS = (tiny,)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    return cfg


@pytest.fixture
def framework(cfg):
    torch.manual_seed(0)
    framework = wpl_d2.build_framework(cfg).eval()
    rows = torch.rand(80, 16)
    framework.weigher.labeled_bank.push(rows, torch.arange(80) % 4)
    return framework


def test_all_that_was_asked_for_is_measured(cfg, framework):
    results = evaluate(cfg, framework)
    assert 0 <= results["sem_seg"]["mIoU"] <= 100
    assert "AP" in results["bbox"]
    assert results["pseudo_labels"][cfg.TEST.PSEUDO_LABELS[0]]["accuracy-pixel"] == pytest.approx(
        results["sem_seg"]["pACC"]
    )
    assert {"auroc-rank-pixel", "auroc-cosine_centered-confident"} <= set(
        results["pseudo_labels"][cfg.TEST.PSEUDO_LABELS[0]]
    )


def test_a_list_is_read_once_for_all_that_is_evaluated_on_it(cfg, framework, tiny, monkeypatch):
    read, get = [], DatasetCatalog.get
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: read.append(name) or get(name))
    cfg.TEST.STUDENT = True
    evaluate(cfg, framework)
    assert read == [tiny]


def test_every_model_on_every_set_has_its_results(cfg, framework, tiny, monkeypatch):
    first, second = tiny, register_part(tiny, 2)
    cfg.DATASETS.TEST, cfg.TEST.PSEUDO_LABELS, cfg.TEST.STUDENT = (first, second), (), True
    module = sys.modules[evaluate.__module__]
    monkeypatch.setattr(
        module, "_evaluate_model", lambda cfg, dataset, model, name, _: {"sem_seg": f"{name} on {dataset.name}"}
    )
    assert evaluate(cfg, framework) == {
        "sem_seg": f"teacher on {first}",
        second: {"sem_seg": f"teacher on {second}"},
        "student": {"sem_seg": f"student on {first}", second: {"sem_seg": f"student on {second}"}},
    }


@pytest.mark.parametrize(
    ("evaluator", "mode", "message"),
    [
        ("confussion", "whole", "TEST.EVALUATOR: 'confussion' is not known; did you mean confusion"),
        ("detectron2", "crop", "TEST.EVALUATOR: detectron2 judges the whole image; set confusion"),
        ("submission", "crop", "TEST.EVALUATOR: submission judges the whole image"),
    ],
)
def test_an_evaluator_that_cannot_judge_is_refused(cfg, evaluator, mode, message):
    cfg.TEST.EVALUATOR, cfg.TEST.INFERENCE.MODE = evaluator, mode
    with pytest.raises(InputError, match=message):
        build_evaluator(cfg, EvalDataset(cfg, name=cfg.DATASETS.TEST[0]), "")


def test_pseudo_labels_without_a_weigher(cfg, framework, tiny):
    model = framework.student.train()
    results = evaluate_pseudo_labels(cfg, model, None, EvalDataset(cfg, name=tiny))
    assert model.training
    assert results["coverage-confident"] > 0
    assert results["accuracy-weighted"] == results["accuracy-confident"]
    classes = MetadataCatalog.get(tiny).stuff_classes
    assert [name for name in results if "auroc" in name] == [
        f"auroc-confidence-{scope}{label}"
        for scope in ("pixel", "confident", "sure")
        for label in ("", "-all objects", *(f"-{name}" for name in classes))
    ]


def test_preview_shows_every_image_in_every_column(cfg, framework, tmp_path):
    render_preview(cfg, framework, tmp_path / "five.png", num=2)
    framework.weigher = None
    render_preview(cfg, framework, tmp_path / "four.png", num=2)
    five, four = (Image.open(tmp_path / f"{name}.png") for name in ("five", "four"))
    assert five.width - four.width >= CELL
    pixels = np.asarray(five)
    assert pixels[80 : 80 + CELL // 2, 20:CELL].std() > 20  # the image's noise


def break_file(file):
    file.write_bytes(file.read_bytes()[:-60])


def remove(file):
    file.unlink()


def change_ids(file):
    Image.fromarray(np.full_like(np.asarray(Image.open(file)), 200)).save(file)


@pytest.mark.parametrize(
    ("file", "spoil", "reason"),
    [
        ("images/1.png", break_file, r"images/1\.png: cannot be read"),
        ("images/1.png", remove, r"images/1\.png: cannot be read"),
        ("masks/1.png", break_file, r"masks/1\.png: cannot be read"),
        ("masks/1.png", remove, r"images/1\.png: is in .*, but has no .*masks/1\.png"),
        ("masks/1.png", change_ids, r"masks/1\.png: holds the ids \[200\]"),
    ],
)
def test_a_file_that_broke_is_named_and_its_image_left_out(cfg, framework, tmp_path, caplog, file, spoil, reason):
    evaluate(cfg, framework)
    spoil(tmp_path / file)
    caplog.clear()
    cfg.TEST.STUDENT = True
    results = evaluate(cfg, framework)
    assert results.pop("left_out") == {"images": 1}
    (told,) = (r.getMessage() for r in caplog.records if "Left out" in r.getMessage())
    assert re.search(f"Left out of the evaluation: .*{reason}", told)
    render_preview(cfg, framework, tmp_path / "preview.png")
    assert (tmp_path / "preview.png").is_file()

    (tmp_path / "val.txt").write_text("0\n2\n")
    expected = evaluate(cfg, framework)
    assert flatten_results_dict(results) == pytest.approx(flatten_results_dict(expected), nan_ok=True)


def test_a_data_set_of_which_nothing_is_left_is_an_error(cfg, framework, tmp_path):
    for number in range(3):
        break_file(tmp_path / f"images/{number}.png")
    with pytest.raises(
        InputError, match=r"tiny_.*_val: not one of its images could be judged, see above; restore them"
    ):
        evaluate(cfg, framework)


@pytest.mark.parametrize("evaluator", ["detectron2", "submission"])
def test_images_are_left_out_of_every_evaluator(cfg, framework, tmp_path, evaluator):
    cfg.TEST.EVALUATOR, cfg.TEST.PSEUDO_LABELS, cfg.MODEL.DETECTOR.MODE = evaluator, (), "none"
    MetadataCatalog.get(cfg.DATASETS.TEST[0]).set(stuff_dataset_id_to_contiguous_id={7: 0, 8: 1, 9: 2, 10: 3})
    break_file(tmp_path / "images/1.png")
    assert evaluate(cfg, framework)["left_out"] == {"images": 1}
    written = sorted(path.name for path in (tmp_path / "output").rglob("label_ids/*"))
    assert written == (["0.png", "2.png"] if evaluator == "submission" else [])


def test_nothing_is_left_out_of_what_is_judged_by_itself(cfg, framework, tmp_path, tiny):
    break_file(tmp_path / "masks/1.png")
    with pytest.raises(InputError, match=r"masks/1\.png: cannot be read"):
        evaluate_pseudo_labels(cfg, framework.student, None, EvalDataset(cfg, name=tiny))


def test_masks_that_were_never_there_are_refused_by_detectron2s_evaluator(cfg, framework, tmp_path):
    cfg.TEST.EVALUATOR = "detectron2"
    (tmp_path / "masks/1.png").unlink()
    with pytest.raises(InputError, match=r"1\.png: is in .*, but has no .*masks/1\.png; add"):
        evaluate(cfg, framework)


@pytest.mark.parametrize(("value", "told"), [(7, "no class"), (2, "'dog' alone")])
def test_metrics_that_say_nothing_are_explained(cfg, framework, tmp_path, caplog, value, told):
    cfg.TEST.PSEUDO_LABELS, cfg.MODEL.DETECTOR.MODE = (), "none"
    for file in (tmp_path / "masks").iterdir():
        Image.fromarray(np.full_like(np.asarray(Image.open(file)), value)).save(file)
    results = evaluate(cfg, framework)
    assert f"{cfg.DATASETS.TEST[0]}: has pixels of {told}, so that its metrics say nothing" in caplog.text
    assert np.isnan(results["sem_seg"]["mIoU"]) == (value == 7)


@pytest.mark.parametrize("left_out", [{}, {"left_out": {"images": 0}}, {"left_out": {"images": 3}}])
def test_a_run_that_left_something_out_ends_with_status_1(cfg, left_out, caplog):
    caplog.set_level("INFO")
    results = {"sem_seg": {"mIoU": 50.0}, **left_out}
    with pytest.raises(SystemExit, match="1") if left_out else nullcontext():
        report_results(cfg, results)
    assert "mIoU on" in caplog.text
    assert ("the exit status is 1" in caplog.text) == bool(left_out)


def test_a_training_without_weights_is_judged_by_what_they_could_be_made_of(tree):
    opts = ["MODEL.TIMM.NAME", "resnet18", "MODEL.BACKBONE.NAME", "build_timm_backbone", "WEIGHTING.LABELED_CONF", 0.0]
    small = ["WEIGHTING.MIN_COUNT", 1, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 16]
    cfg = tree.cfg("MODEL.DEVICE", "cpu", *opts, "WEIGHTING.BANK_SIZE", 6, "WEIGHTING.PUSH_PER_IMAGE", 2, *small)
    torch.manual_seed(0)
    framework = wpl_d2.build_framework(cfg).eval()
    assert framework.weigher is None
    seen = []
    forward = framework.teacher_forward
    framework.teacher_forward = lambda items: seen.append([item["image_id"] for item in items]) or forward(items)
    weigher = filled_weigher(cfg, framework)
    # 3 images of 2 pixels each fill a ring of 6, so 2 batches of 2.
    assert [len(batch) for batch in seen] == [2, 2]
    assert weigher.unlabeled_bank.counts.sum() == 0
    expected = PixelWeigher.from_config(cfg)
    torch.manual_seed(1)
    for items in itertools.islice(build_labeled_loader(cfg), 2):
        output = forward(items).output
        expected.stage_labeled(output.embedding, output.logits, torch.stack([item["sem_seg"] for item in items]))
        expected.after_step()
    torch.manual_seed(1)
    again = filled_weigher(cfg, framework)
    assert again.labeled_bank.counts.sum() > 0
    assert torch.equal(again.labeled_bank.ring, expected.labeled_bank.ring)
    results = evaluate_pseudo_labels(cfg, framework.teacher, again, EvalDataset(cfg, name=f"{tree.name}_val"))
    assert 0 <= results["auroc-rank-pixel"] <= 1 and "auroc-softmatch-pixel" not in results
    # A score that learns is judged as its training has left it.
    cfg.WEIGHTING.KIND = ("softmatch",)
    learned = PixelWeigher.from_config(cfg)
    results = evaluate_pseudo_labels(cfg, framework.teacher, learned, EvalDataset(cfg, name=f"{tree.name}_val"))
    assert results["auroc-softmatch-pixel"] == 0.5  # it has learned nothing yet
