import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from report_helpers import rows_of

from wpl_d2.evaluation.image_counts import FILE, ImageCounts
from wpl_d2.report import evaluate_run, lacks_evidence, make_report
from wpl_d2.report.evidence import choose_examples
from wpl_d2.utils.errors import InputError


def test_the_first_examples_are_of_all_kinds_and_none_comes_twice():
    scores = np.array([50.0, 10, 90, np.nan, 70, 30, 20, 80])
    chosen = choose_examples(scores)
    assert [(kind, scores[index]) for kind, index, _ in chosen[:3]] == [("worst", 10), ("median", 50), ("best", 90)]
    assert sorted(index for _, index, _ in chosen) == [0, 1, 2, 4, 5, 6, 7]
    assert {rank: scores[index] for _, index, rank in chosen} == dict(enumerate([90, 80, 70, 50, 30, 20, 10], 1))
    assert [kind for kind, *_ in choose_examples(np.array([5.0]))] == ["worst"]
    assert choose_examples(np.array([np.nan])) == []


def test_labels_are_counted_and_pictures_drawn(runs):
    folder = runs["teacher"] / "report"
    found = json.loads((folder / "evidence.json").read_text())
    masks = [np.asarray(Image.open(path)) for path in sorted((folder.parents[1] / "set/masks").glob("labeled*"))]
    assert found["labeled"]["pixels"] == [int(sum((mask == c).sum() for mask in masks)) for c in range(3)]
    assert found["labeled"]["images_with"] == [3, 3, 3] and found["classes"] == ["ground", "box", "ball"]
    assert {example["rank"] for example in found["examples"]} == {1, 2}
    for example in found["examples"]:
        assert list(example["pictures"]) == ["image", "truth", "prediction", "errors", "confidence", "weights"]
        for name in example["pictures"].values():
            assert Image.open(folder / name).size == (60, 50)


def test_the_wrong_pixels_are_those_of_the_counts(runs):
    folder = runs["teacher"]
    counts = ImageCounts.load(next((folder / "inference").rglob(FILE)))
    for example in json.loads((folder / "report/evidence.json").read_text())["examples"]:
        right, true, _ = counts.counts[counts.files.index(example["file"])].sum(axis=1)
        assert example["wrong"] == pytest.approx(100 * (1 - right / true))


def test_a_run_without_counts_is_evaluated_when_asked(runs, tmp_path):
    folder = shutil.copytree(runs["teacher"], tmp_path / "teacher_s1")
    shutil.rmtree(folder / "inference")
    shutil.rmtree(folder / "report")
    torch.manual_seed(5)
    assert lacks_evidence(folder)
    evaluate_run(folder)
    assert not lacks_evidence(folder)
    (summary,) = make_report([folder])["runs"]
    assert summary["figure"]["value"] == pytest.approx(rows_of(folder)[-1]["sem_seg/mIoU"])
    assert summary["figure"]["counts_are_of_it"] and len(summary["examples"]) == 2


def test_a_run_without_a_model_cannot_be_evaluated(run):
    with pytest.raises(InputError, match=r"lacks config\.yaml or model_final\.pth"):
        evaluate_run(run)
