"""Predictions leave in a format, are corrected, and come back as labels of the images that had none."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import CLASSES
from PIL import Image
from pycocotools.coco import COCO

from wpl_d2.cli import main
from wpl_d2.data.additions import find_additions
from wpl_d2.data.dataset_report import report_dataset
from wpl_d2.data.datasets import load_description
from wpl_d2.data.image_io import read_mask, read_record_mask
from wpl_d2.inference.mask_formats import MASK_FORMATS
from wpl_d2.inference.runtime_model import Prediction
from wpl_d2.inference.sources import Frame, open_source
from wpl_d2.inference.writers import PredictionWriter, ResultFiles
from wpl_d2.utils.errors import InputError


def predict(tree, mask_format, output, names=("unlabeled1", "unlabeled3")):
    """Write blobs of the tree's classes as predictions of some of its images; returns them by the image's id."""
    folder = tree.root / "images"
    metadata = {"classes": CLASSES, "objects": [1, 2], "colors": [[i, i, i] for i in range(3)]}
    source = open_source(str(folder))
    files = ResultFiles(output, metadata, source, mask_format)
    masks, made = {}, []
    for seed, name in enumerate(names):
        noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(50, 60)).astype(np.float32), None, 4)
        masks[name] = np.digitize(noise, [-0.03, 0.05]).astype(np.uint8)
        image = np.zeros((50, 60, 3), np.uint8)
        made.append(files.add(Frame(Path(name), Path(f"{name}.png"), image), image, Prediction(masks[name], None)))
    if mask_format == "coco":
        with PredictionWriter(output, metadata, False, source, mask_format) as writer:
            for outcome in made:
                writer.add(outcome)
    return masks


def content(tree):
    files = [file for file in tree.root.rglob("*") if file.is_file()]
    return {file.relative_to(tree.root).as_posix(): file.read_bytes() for file in files}


def near_edges(mask):
    """Pixels beside one of another class, or at the image's edge."""
    padded = np.pad(mask, 1, constant_values=99)
    return (cv2.dilate(padded, np.ones((3, 3))) != cv2.erode(padded, np.ones((3, 3))))[1:-1, 1:-1]


@pytest.fixture
def unmasked(tree):
    """The tree without masks of its unlabeled images."""
    for file in (tree.root / "masks").glob("unlabeled*"):
        file.unlink()
    return tree


@pytest.mark.parametrize("mask_format", MASK_FORMATS)
def test_predictions_come_back_as_labels(mask_format, unmasked, tmp_path, capsys):
    if mask_format == "geotiff":
        pytest.importorskip("rasterio")
    tree = unmasked
    masks = predict(tree, mask_format, tmp_path / "out")
    before = content(tree)
    assert main(["init", str(tree.yaml), "--add", str(tmp_path / "out")]) == 0
    assert "2 images are labeled from now on" in capsys.readouterr().out
    after = content(tree)
    assert after.keys() - before.keys() == {f"masks/{name}.png" for name in masks}
    assert {name for name in before if after[name] != before[name]} == {"labeled.txt", "unlabeled.txt"}
    assert (tree.root / "labeled.txt").read_text().split() == [*(f"labeled{i}" for i in range(3)), *masks]
    assert (tree.root / "unlabeled.txt").read_text().split() == ["unlabeled0", "unlabeled2", "unlabeled4"]
    report = report_dataset(load_description(tree.yaml), 10)
    assert report.problems == []
    records = {record["image_id"]: record for record in report.lists["labeled"]}
    for name, mask in masks.items():
        found = read_record_mask(records[name])
        wrong = found != mask
        assert not wrong.any() or (mask_format == "labelme" and near_edges(mask)[wrong].all())
        assert wrong.mean() < 0.06


@pytest.mark.parametrize(
    ("labels", "colors"),
    [
        ({"format": "masks", "values": {10: "ground", 20: "box", 300: "ball", 77: "ignore"}}, None),
        ({"format": "color_masks", "colors": {"ground": [0, 0, 0], "box": [9, 0, 0], "ball": [0, 9, 0]}}, None),
    ],
)
def test_labels_are_stored_as_those_of_the_data_set(labels, colors, unmasked, tmp_path):
    tree = unmasked
    masks = predict(tree, "coco", tmp_path / "out")
    tree.describe(labels=labels, colors=colors)
    find_additions(load_description(tree.yaml), tmp_path / "out").write()
    for name, mask in masks.items():
        stored = np.asarray(Image.open(tree.mask(name)))
        if labels["format"] == "masks":
            assert (stored == np.array([10, 20, 300])[mask]).all()
        else:
            assert (stored == np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0]])[mask]).all()


def test_what_the_masks_of_the_data_set_cannot_hold_is_refused(unmasked, tmp_path):
    tree = unmasked
    predict(tree, "index_png", tmp_path / "out")
    file = tmp_path / "out/masks/unlabeled1.png"
    Image.fromarray(np.where(read_mask(file) == 1, 255, read_mask(file)).astype(np.uint8)).save(file)
    tree.describe(labels={"format": "color_masks", "colors": {c: [i, 0, 0] for i, c in enumerate(CLASSES)}})
    with pytest.raises(InputError, match="'labels': nothing stands for no class, which a new mask has; add what does"):
        find_additions(load_description(tree.yaml), tmp_path / "out")
    assert not tree.mask("unlabeled1").exists()


def test_files_of_the_format_of_the_data_set_are_kept_as_they_are(unmasked, tmp_path):
    tree = unmasked
    predict(tree, "coco", tmp_path / "first", [f"labeled{i}" for i in range(3)])
    predict(tree, "coco", tmp_path / "val", [f"val{i}" for i in range(2)])
    for name in ("first", "val"):
        shutil.copy(tmp_path / name / "masks.json", tree.root / f"{name}.json")
    files = "files: [first.json, val.json]  # of round 1"
    tree.describe(mask=None)
    text = f"# ours\nlabels:\n  format: coco\n  {files}\n  uncovered: ignore\n{tree.yaml.read_text()}"
    tree.yaml.write_text(text)
    masks = predict(tree, "coco", tmp_path / "out")
    find_additions(load_description(tree.yaml), tmp_path / "out").write()
    added = "files: [first.json, val.json, added/masks.json]  # of round 1"
    assert tree.yaml.read_text() == text.replace(files, added)
    records = {record["image_id"]: record for record in load_description(tree.yaml).records("labeled")}
    assert len(records) == 5
    for name, mask in masks.items():
        assert (read_record_mask(records[name]) == mask).all()
    predict(tree, "labelme", tmp_path / "other", ["unlabeled0"])
    with pytest.raises(InputError, match="its labels are of the format coco; add labels of that format"):
        find_additions(load_description(tree.yaml), tmp_path / "other")


def test_labelme_files_go_where_those_of_the_data_set_are(unmasked, tmp_path):
    tree = unmasked
    predict(tree, "labelme", tree.root, [*(f"labeled{i}" for i in range(3)), *(f"val{i}" for i in range(2))])
    tree.describe(mask=None, labels={"format": "labelme", "files": "labelme/{id}.json", "uncovered": "ignore"})
    predict(tree, "labelme", tmp_path / "out")
    find_additions(load_description(tree.yaml), tmp_path / "out").write()
    for name in ("unlabeled1", "unlabeled3"):
        copied = tree.root / "labelme" / f"{name}.json"
        assert copied.read_bytes() == (tmp_path / "out/labelme" / f"{name}.json").read_bytes()
    report = report_dataset(load_description(tree.yaml), 10)
    assert report.problems == [] and len(report.lists["labeled"]) == 5


def test_a_list_that_names_masks_names_the_new_ones(unmasked, tmp_path):
    tree = unmasked
    for name, count in (("labeled", 3), ("val", 2)):
        lines = [f"images/{name}{i}.png\tmasks/{name}{i}.png" for i in range(count)]
        (tree.root / f"{name}.txt").write_text("\n".join(lines))
    (tree.root / "unlabeled.txt").write_text("\n".join(f"images/unlabeled{i}.png" for i in range(5)))
    tree.describe(image="{id}.*", mask=None)
    masks = predict(tree, "index_png", tmp_path / "out")
    find_additions(load_description(tree.yaml), tmp_path / "out").write()
    last = (tree.root / "labeled.txt").read_text().splitlines()[-1]
    assert last == "images/unlabeled3.png\tadded/images/unlabeled3.png"
    assert (read_mask(tree.root / "added/images/unlabeled3.png") == masks["unlabeled3"]).all()
    assert len(load_description(tree.yaml).records("labeled")) == 5


def no_image(out):
    out.rename(out.with_name("stranger.png"))


def of_validation(out):
    out.rename(out.with_name("val1.png"))


def labeled(out):
    out.rename(out.with_name("labeled1.png"))


def other_class(out):
    Image.fromarray(np.full((50, 60), 3, np.uint8)).save(out)


def other_size(out):
    Image.fromarray(np.zeros((60, 50), np.uint8)).save(out)


def two_kinds(out):
    (out.parent / "x.json").write_text(json.dumps({"shapes": [], "imagePath": "x.png", "version": "5.5.0"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_image, r"masks/stranger\.png: is of no image in the lists of .*data\.yaml; name it as its image"),
        (of_validation, r"images/val1\.png: is in the list 'val', which is not trained on"),
        (labeled, r"images/labeled1\.png: is labeled already, and .* labels it"),
        (other_class, r"masks/unlabeled1\.png: holds the value 3, and the data set has the class ids 0 to 2"),
        (other_size, r"masks/unlabeled1\.png: is 50x60 \(width x height\), its image 60x50"),
        (two_kinds, r"out: holds labels of several kinds; say which it is: .*labelme.*, or masks, such as masks/un"),
    ],
)
def test_what_does_not_belong_to_the_data_set_is_refused(damage, message, unmasked, tmp_path):
    predict(unmasked, "index_png", tmp_path / "out")
    damage(tmp_path / "out/masks/unlabeled1.png")
    before = content(unmasked)
    with pytest.raises(InputError, match=message):
        find_additions(load_description(unmasked.yaml), tmp_path / "out")
    assert content(unmasked) == before


def test_categories_that_are_no_classes_are_refused(unmasked, tmp_path):
    predict(unmasked, "labelme", tmp_path / "out")
    file = tmp_path / "out/labelme/unlabeled1.json"
    file.write_text(file.read_text().replace('"ball"', '"bell"'))
    with pytest.raises(InputError, match=r"unlabeled1\.json: has the categories 'bell', which are not in 'classes' of"):
        find_additions(load_description(unmasked.yaml), tmp_path / "out")
    predict(unmasked, "coco", tmp_path / "coco")
    file = tmp_path / "coco/masks.json"
    file.write_text(file.read_text().replace("unlabeled1.png", "stranger.png"))
    with pytest.raises(InputError, match=r"masks\.json, image 'stranger\.png': is of no image in the lists"):
        find_additions(load_description(unmasked.yaml), tmp_path / "coco")
    assert len(COCO(file).getImgIds()) == 2


def test_a_mask_that_is_there_is_not_written_over(tree, tmp_path):
    """The unlabeled images of the tree have masks."""
    predict(tree, "index_png", tmp_path / "out")
    with pytest.raises(InputError, match=r"masks/unlabeled1\.png: is there already, and is another mask"):
        find_additions(load_description(tree.yaml), tmp_path / "out")
    for name in ("unlabeled1", "unlabeled3"):
        shutil.copy(tree.mask(name), tmp_path / "out/masks")
    find_additions(load_description(tree.yaml), tmp_path / "out").write()
    assert "unlabeled1" in (tree.root / "labeled.txt").read_text()
