"""`wpl init` on folders with labels of annotation tools, as the tools' own libraries wrote them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wpl_d2.cli import main
from wpl_d2.data.dataset_report import report_dataset
from wpl_d2.data.datasets import load_description
from wpl_d2.data.image_io import read_mask, read_record_mask
from wpl_d2.data.inspection import AmbiguousLabelsError, propose
from wpl_d2.utils.errors import InputError

FILES = Path(__file__).parent / "labels" / "files"
KINDS = {
    "coco": (["coco_polygons.json"], {"files": "coco_polygons.json"}),
    "roboflow_coco": (["roboflow_coco"], {"format": "coco", "files": "roboflow_coco/train/_annotations.coco.json"}),
    "labelme": (["labelme"], {"files": "labelme/{id}.json"}),
    "cvat": (["cvat.xml"], {"files": "cvat.xml"}),
    "via": (["via_project.json"], {"files": "via_project.json"}),
    "label_studio": (["label_studio_brush.json"], {"files": "label_studio_brush.json"}),
    "yolo": (["yolo"], {"files": "yolo/labels/{id}.txt", "names": "yolo/data.yaml"}),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Photos a, b and c, and some of the files."""
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "fields"

    def make(*names):
        for name in ("images", *names):
            copy = shutil.copytree if (FILES / name).is_dir() else shutil.copy
            copy(FILES / name, root / name) if name != "images" else shutil.copytree(FILES / name, root / name)
        return root

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_tools_are_recognized_by_content(kind, folder):
    names, settings = KINDS[kind]
    root = folder(*names)
    if kind == "roboflow_coco":
        for file in (root / "images").iterdir():
            file.rename(root / "roboflow_coco/train" / f"{file.stem}_png.rf.0123456789abcdef.png")
    found = propose(root)
    assert found.labels == {"format": kind, "uncovered": "background"} | settings
    assert sorted(found.classes) == ["background", "ball", "box"] and found.classes[0] == "background"
    said = "\n".join(found.said)
    assert "2 images with labels, " in said and "and 1 without" in said and "left out" not in said
    assert "% of an image in the median: what no shape covers is 'background' (`uncovered`)" in said
    found.write()
    description = load_description(found.path)
    records = [record for name in ("labeled", "val") for record in description.records(name)]
    ids = np.array([0, *(description.classes.index(name) for name in ("box", "ball"))], np.uint8)
    if kind != "roboflow_coco":  # which has polygons through the middle of pixels
        for record in records:
            expected = read_mask(FILES / "masks" / f"{Path(record['file_name']).stem}.png")
            np.testing.assert_array_equal(read_record_mask(record), ids[expected])
    report = report_dataset(description, 10)
    assert [problem for problem in report.problems if "no pixel is labeled" not in problem] == []
    assert [Path(record["file_name"]).stem[0] for record in report.lists["unlabeled"]] == ["c"]


def test_shapes_that_cover_everything_leave_what_none_covers_without_a_class(folder):
    root = folder("labelme")
    for file in (root / "labelme").iterdir():
        content = json.loads(file.read_text())
        width, height = content["imageWidth"], content["imageHeight"]
        outline = [[0, 0], [width, 0], [width, height - 1], [0, height - 1]]
        ground = {"label": "ground", "points": outline, "shape_type": "polygon", "group_id": None, "flags": {}}
        ignored = {**ground, "label": "__ignore__", "points": [[0, 0], [3, 0], [3, 3]]}
        file.write_text(json.dumps({**content, "shapes": [ground, *content["shapes"], ignored]}))
    found = propose(root)
    assert found.classes == ["ball", "box", "ground"]
    assert found.labels["uncovered"] == "ignore" and found.labels["categories"] == {"__ignore__": "ignore"}
    assert "they are to cover everything, so that what none covers has no class" in "\n".join(found.said)
    found.rename_classes(["ball", "crate", "ground"])
    found.write()
    description = load_description(found.path)
    assert description.labels["categories"] == {"__ignore__": "ignore", "box": "crate"}
    mask = read_record_mask({r["image_id"]: r for n in ("labeled", "val") for r in description.records(n)}["a"])
    assert set(np.unique(mask)) == {0, 1, 2, 255} and (mask[-1] == 255).all()


@pytest.mark.parametrize("files", ["masks/{id}_{class}.png", "masks/{class}/{id}.png"])
def test_one_mask_for_each_class_is_recognized(files, folder):
    root = folder()
    for name in ("a", "b"):
        mask = read_mask(FILES / "masks" / f"{name}.png")
        for class_id, label in ((1, "box"), (2, "ball")):
            file = root / files.replace("{id}", name).replace("{class}", label)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((mask == class_id).astype(np.uint8) * 255).save(file)
    found = propose(root)
    assert found.labels == {"format": "class_masks", "files": files, "uncovered": "background"}
    assert found.classes == ["background", "ball", "box"] and "a mask for each class" in "\n".join(found.said)
    found.rename_classes(["ground", "orb", "box"])
    assert found.labels["files"]["orb"] == files.replace("{class}", "ball")
    found = propose(root)
    found.write()
    description = load_description(found.path)
    for record in (record for name in ("labeled", "val") for record in description.records(name)):
        expected = read_mask(FILES / "masks" / f"{Path(record['file_name']).stem}.png")
        np.testing.assert_array_equal(read_record_mask(record), np.array([0, 2, 1], np.uint8)[expected])


def test_panoptic_labels_are_recognized_with_their_images(folder):
    root = folder()
    (root / "panoptic").mkdir()
    annotations = []
    for number, name in enumerate("ab", start=1):
        mask = read_mask(FILES / "masks" / f"{name}.png")
        Image.fromarray(np.stack([mask, mask * 0, mask * 0], axis=2)).save(root / "panoptic" / f"{name}.png")
        segments = [{"id": i, "category_id": i, "iscrowd": 0} for i in np.unique(mask).tolist() if i]
        annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
    content = {
        "images": [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate("ab", start=1)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "box"}, {"id": 2, "name": "ball"}],
    }
    (root / "panoptic.json").write_text(json.dumps(content))
    found = propose(root)
    where = {"files": "panoptic.json", "masks": "panoptic"}
    assert found.labels == {"format": "coco_panoptic", "uncovered": "background"} | where
    assert found.classes == ["background", "box", "ball"]
    found.write()
    description = load_description(found.path)
    for record in (record for name in ("labeled", "val") for record in description.records(name)):
        expected = read_mask(FILES / "masks" / f"{Path(record['file_name']).stem}.png")
        np.testing.assert_array_equal(read_record_mask(record), expected)


def test_labels_of_two_kinds_are_ambiguous(folder, capsys, monkeypatch):
    root = folder("labelme", "coco_polygons.json", "masks")
    with pytest.raises(AmbiguousLabelsError) as refused:
        propose(root)
    told = str(refused.value)
    assert (
        "holds labels of several kinds; say which it is: what is in coco_polygons.json (coco): --masks coco_poly"
        in told
    )
    assert "(labelme): --masks *.json" in told and "or masks, such as masks/a.png: --masks masks/*" in told
    assert propose(root, masks="labelme/*").labels["format"] == "labelme"
    assert propose(root, masks="masks/*").labels == {}
    answers = iter(["1", "", ""])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    main(["init", str(root)])
    assert load_description(root / "fields.yaml").labels["format"] == "coco"


def test_what_is_no_label_is_said(folder):
    root = folder()
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 3, 3]}
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [box],
        "categories": [{"id": 1, "name": "x"}],
    }
    (root / "detections.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"detections\.json: has boxes without outlines"):
        propose(root)
    (root / "detections.json").unlink()
    (root / "a.txt").write_text("0 0.1 0.1 0.2 0.2\n")
    with pytest.raises(InputError, match=r"a\.txt: has boxes without outlines"):
        propose(root)
    (root / "a.txt").write_text("0 0.1 0.1 0.2 0.2 0.3 0.3\n")
    with pytest.raises(InputError, match=r"a\.txt: is of YOLO, and no YAML of the folder has the names"):
        propose(root)
    (root / "a.txt").unlink()
    (root / "notes.json").write_text('{"by": "me"}')
    with pytest.raises(InputError, match=r"notes\.json: may hold labels, and is of no format that is known"):
        propose(root)
    (root / "notes.json").unlink()
    content["annotations"][0]["segmentation"] = [[0, 0, 3, 0, 3, 3]]
    content["images"][0]["file_name"] = "other.png"
    (root / "coco.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"coco\.json: has labels of none of the images, such as images/a\.png"):
        propose(root)


def test_real_photos_with_coco_labels(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "coco128"
    (root / "photos").mkdir(parents=True)
    for file in sorted((shared / "coco128/train2017").iterdir())[:12]:
        (root / "photos" / file.name).symlink_to(file)
    shutil.copy(shared / "coco128/annotations/instances_train2017.json", root / "labels.json")
    found = propose(root)
    assert found.labels == {"format": "coco", "files": "labels.json", "uncovered": "background"}
    assert found.classes[:4] == ["background", "person", "bicycle", "car"]
    assert {"person", "car"} <= set(found.objects)
    found.write()
    description = load_description(found.path)
    assert sum(len(description.records(name)) for name in ("labeled", "val")) >= 11
