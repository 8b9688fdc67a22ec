"""`wpl init`: folders of images and masks in the layouts that they come in, and what it says about those it refuses."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from pycocotools.coco import COCO

from wpl_d2.cli import main
from wpl_d2.data.dataset_report import report_dataset
from wpl_d2.data.datasets import load_description
from wpl_d2.data.image_io import read_record_mask
from wpl_d2.data.inspection import propose
from wpl_d2.data.inspection.held_out import choose_validation
from wpl_d2.utils.errors import InputError

SIZE = 48


def save_photo(path, seed=0, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([7, seed]).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def save_mask(path, seed=0, classes=4, value=None):
    """A background of 0 with a square of each of some classes; `value`: of all squares, in place of their classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((SIZE, SIZE), np.uint8)
    for c in range(1, classes):
        if (seed + c) % 3:
            pixels[12 * c : 12 * c + 10, 8:20] = value or c
    Image.fromarray(pixels).save(path)


def fill(root, image, mask, count=10, labeled=6):
    """Photos and masks of the first of them; {} in the paths becomes a name that is no frame's."""
    names = [f"{chr(97 + 7 * i % 26)}{chr(107 + i)}" for i in range(count)]
    for i, name in enumerate(names):
        save_photo(root / image.format(name), i)
        if i < labeled:
            save_mask(root / mask.format(name), i)
    return root


LAYOUTS = {
    "two_folders": ("images/{}.jpg", "masks/{}.png", "images/{id}.jpg", "masks/{id}.png"),
    "other_names": ("pix/{}.png", "truth/{}.png", "pix/{id}.png", "truth/{id}.png"),
    "side_by_side": ("{}.jpg", "{}.png", "{id}.jpg", "{id}.png"),
    "side_by_side_tail": ("all/{}.png", "all/{}_mask.png", "{id}.png", "{id}_mask.png"),
    "voc": (
        "VOC2012/JPEGImages/{}.jpg",
        "VOC2012/SegmentationClass/{}.png",
        "VOC2012/JPEGImages/{id}.jpg",
        "VOC2012/SegmentationClass/{id}.png",
    ),
    "cityscapes": (
        "leftImg8bit/train/ulm/{}_000_leftImg8bit.png",
        "gtFine/train/ulm/{}_000_gtFine_labelIds.png",
        "leftImg8bit/{id}_leftImg8bit.png",
        "gtFine/{id}_gtFine_labelIds.png",
    ),
    "camvid": ("raw/{}.png", "raw_labels/{}_L.png", "raw/{id}.png", "raw_labels/{id}_L.png"),
    "spaces": ("my photos/a {}.jpg", "my masks/a {}.png", "my photos/{id}.jpg", "my masks/{id}.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_recognized_and_can_be_trained_on(layout, tmp_path):
    image, mask, *templates = LAYOUTS[layout]
    root = fill(tmp_path / "fields", image, mask)
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    assert main(["init", str(root)]) == 0
    assert all(file.read_bytes() == content for file, content in before.items())
    description = load_description(root / "fields.yaml")
    assert [description.image, description.mask] == templates
    report = report_dataset(description, 10)
    assert report.problems == []
    assert {name: len(records) for name, records in report.lists.items()} == {"labeled": 5, "unlabeled": 4, "val": 1}
    assert len(report.pixels) == 6
    assert description.classes == ("background", "class_1", "class_2", "class_3")
    assert description.objects == ("class_1", "class_2", "class_3")


@pytest.mark.parametrize(("suffix", "mode"), [("png", "L"), ("png", "RGB"), ("jpg", "L")])
def test_even_images_such_as_scans_are_not_taken_for_masks(suffix, mode, tmp_path):
    fill(tmp_path, f"scans/{{}}.{suffix}", "truth/{}.png")
    for file in (tmp_path / "scans").iterdir():
        page = np.full((400, 400), 255, np.uint8)
        page[100:140, 100:140] = np.asarray(Image.open(file).convert("L"))[:40, :40]  # all grays
        Image.fromarray(page).convert(mode).save(file, quality=95)
    for file in (tmp_path / "truth").iterdir():
        Image.open(file).resize((400, 400), Image.Resampling.NEAREST).save(file)
    assert propose(tmp_path).templates == (f"scans/{{id}}.{suffix}", "truth/{id}.png")


def test_folders_of_a_split_are_kept(tmp_path):
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        for i in range(count):
            save_photo(tmp_path / split / "images" / f"{i}.jpg", i + ord(split[0]))
            if (split, i) not in (("train", 3), ("test", 2)):
                save_mask(tmp_path / split / "labels" / f"{i}.png", i)
    found = propose(tmp_path)
    assert {name: len(lines) for name, lines in found.lists.items()} == {
        **{"labeled": 3, "unlabeled": 1, "val": 2, "test": 2},
    }
    assert found.lists["val"][0] == "val/images/0.jpg\tval/labels/0.png"
    assert "left out: 1 images without masks in folders for validation or test" in "\n".join(found.said)
    found.write()
    assert report_dataset(load_description(found.path), 10).problems == []


def test_masks_of_classes_are_taken_of_several_kinds(tmp_path):
    fill(tmp_path, "JPEGImages/{}.jpg", "SegmentationClass/{}.png")
    fill(tmp_path, "JPEGImages/{}.jpg", "SegmentationObject/{}.png")
    found = propose(tmp_path)
    assert found.templates[1] == "SegmentationClass/{id}.png"
    assert "passed over: masks such as SegmentationObject/" in "\n".join(found.said)
    assert propose(tmp_path, masks="SegmentationObject/*").templates[1] == "SegmentationObject/{id}.png"


@pytest.mark.parametrize(
    ("content", "names", "color"),
    [
        ("sky\nroad\ncar\ntree\n", ["sky", "road", "car", "tree"], (0, 113, 188)),
        ("road\ncar\ntree\n", ["background", "road", "car", "tree"], (0, 113, 188)),
        ("1 road\n2: traffic light\n3,tree", ["background", "road", "traffic light", "tree"], (0, 113, 188)),
        ("sky 1 2 3\nroad 4 5 6\ncar 7 8 9\ntree 7 8 10", ["sky", "road", "car", "tree"], (1, 2, 3)),
    ],
)
def test_names_of_classes_are_read(content, names, color, tmp_path):
    fill(tmp_path, "images/{}.jpg", "masks/{}.png")
    (tmp_path / "classes.txt").write_text(content)
    found = propose(tmp_path)
    assert found.classes == names
    assert found.colors[0] == color


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sky\nroad\n", r"classes\.txt: has 2 different names, and the masks have 4 classes"),
        ("sky\nroad\nsky\ntree\n", r"classes\.txt: has 3 different names"),
        ("0 sky\n1 road\n3 tree\n4 car", r"classes\.txt: numbers its classes \[0, 1, 3, 4\]"),
        ("0 sky\n1 road\ntree\ncar", r"classes\.txt: numbers its classes \[0, 1\]"),
    ],
)
def test_names_that_do_not_fit_are_refused(content, message, tmp_path):
    fill(tmp_path, "images/{}.jpg", "masks/{}.png")
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        propose(tmp_path)


def white_for_one(mask):
    return Image.fromarray((mask > 0).astype(np.uint8) * 255)


def levels(mask):
    return Image.fromarray(mask * 85)


def gray_colors(mask):
    return Image.fromarray(mask).convert("RGB")


def colors(mask):
    return Image.fromarray(COLORS[mask])


COLORS = np.array([[0, 0, 0], [0, 0, 90], [0, 200, 0], [255, 0, 0]], np.uint8)


@pytest.mark.parametrize(
    ("stored", "labels", "said"),
    [
        (white_for_one, {"format": "masks", "values": {0: "background", 255: "class_1"}}, "values 0, 255, gray"),
        (
            levels,
            {"format": "masks", "values": {0: "background", 85: "class_1", 170: "class_2", 255: "class_3"}},
            "masks of the values 0, 85, 170, 255, gray",
        ),
        (gray_colors, {"format": "masks"}, "masks of class ids, gray that is stored as colors"),
        (colors, {"format": "color_masks"}, "masks of 4 colors"),
    ],
)
def test_masks_of_other_values_are_read_as_class_ids(stored, labels, said, tmp_path, monkeypatch):
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))
    root, truth = fill(tmp_path / "fields", "images/{}.jpg", "masks/{}.png"), {}
    for file in (root / "masks").iterdir():
        mask = np.asarray(Image.open(file))
        truth[file.stem] = (mask > 0).astype(np.uint8) if stored is white_for_one else mask
        stored(mask).save(file)
    found = propose(root)
    assert found.labels == labels
    assert said in "\n".join(found.said)
    found.rename_classes(["soil", *found.classes[1:]])
    found.write()
    description = load_description(found.path)
    report = report_dataset(description, 10)
    assert report.problems == []
    assert description.classes[0] == "soil" and description.objects == description.classes[1:]
    for record in (*report.lists["labeled"], *report.lists["val"]):
        assert (read_record_mask(record) == truth[record["image_id"]]).all()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("labelmap.txt", "# label:color_rgb:parts\nsoil:0,0,0::\ntree:1,1,1::\ncrop:255,0,0::\n{}weed:0,0,90::\n"),
        ("label_colors.txt", "0 0 0\tsoil\n1 1 1\ttree\n255 0 0\tcrop\n{}0 0 90\tweed\n"),
        ("class_dict.csv", "name,r,g,b\nsoil,0,0,0\ntree,1,1,1\ncrop,255,0,0\n{}weed,0,0,90\n"),
    ],
)
def test_names_of_colors_are_those_of_the_file(file, content, tmp_path, monkeypatch):
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))
    root = fill(tmp_path / "fields", "images/{}.jpg", "masks/{}.png")
    for mask in (root / "masks").iterdir():
        colors(np.asarray(Image.open(mask))).save(mask)
    corn = {"labelmap.txt": "corn:0,200,0::\n", "label_colors.txt": "0 200 0 corn\n"}.get(file, "corn,0,200,0\n")
    (root / file).write_text(content.format(corn))
    found = propose(root)
    assert found.classes == ["soil", "tree", "crop", "corn", "weed"]
    assert found.objects == ["crop", "corn", "weed"]
    found.write()
    report = report_dataset(load_description(found.path), 10)
    assert report.problems == [] and report.unused() == ["tree"]
    (root / file).write_text(content.format(corn.replace("200", "201")))
    with pytest.raises(InputError, match=r"masks have the color \(0, 200, 0\), which is not among the classes"):
        propose(root)


def test_names_of_other_values_must_be_as_many(tmp_path):
    fill(tmp_path, "images/{}.jpg", "masks/{}.png")
    for file in (tmp_path / "masks").iterdir():
        levels(np.asarray(Image.open(file))).save(file)
    (tmp_path / "classes.txt").write_text("soil\ncrop\nweed\nstone\ntree\n")
    with pytest.raises(
        InputError, match=r"classes\.txt, has 5 names, and the masks have 4 values; write a name for each"
    ):
        propose(tmp_path)


@pytest.mark.parametrize(
    ("ignore", "values"),
    [("255", {0: "background", 90: "class_1"}), ("none", {0: "background", 90: "class_1", 255: "class_2"})],
)
def test_whether_white_is_a_class_can_be_said(ignore, values, tmp_path):
    fill(tmp_path, "images/{}.jpg", "masks/{}.png")
    for file in (tmp_path / "masks").iterdir():
        white_among_levels(file)
    found = propose(tmp_path, ignore=ignore)
    assert found.ignore == 255
    assert found.labels["values"] == values


def test_values_that_no_mask_holds_are_noted(tmp_path):
    root = fill(tmp_path / "fields", "images/{}.jpg", "masks/{}.png")
    for file in (root / "masks").iterdir():
        mask = np.asarray(Image.open(file))
        Image.fromarray(np.where(mask == 3, 5, mask).astype(np.uint8)).save(file)
    found = propose(root)
    assert "no mask holds 3, 4: these classes are never learned, nor predicted" in found.said
    found.write()
    report = report_dataset(load_description(found.path), 10)
    assert report.problems == []
    assert (
        f"{found.path}: no mask shows 'class_3', 'class_4'; nothing is learned of what is not labeled" in report.notes
    )


def test_a_palette_gives_the_colors(tmp_path):
    fill(tmp_path, "images/{}.jpg", "masks/{}.png")
    for file in (tmp_path / "masks").iterdir():
        mask = Image.open(file).convert("P")
        mask.putdata(list(Image.open(file).getdata()))
        mask.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200])
        mask.save(file)
    assert propose(tmp_path).colors == [(0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200)]


def test_frames_of_one_video_are_on_one_side(tmp_path):
    """The camera moves by a quarter of a stone from frame to frame; half of the frames have masks."""
    for video in "abcde":
        stones = np.random.default_rng(ord(video)).integers(0, 256, (3, 8, 3), dtype=np.uint8)
        scene = stones.repeat(16, 0).repeat(16, 1)
        for frame in range(16):
            (tmp_path / "images").mkdir(exist_ok=True)
            noise = np.random.default_rng(frame).integers(0, 20, (SIZE, SIZE, 3), dtype=np.uint8)
            window = scene[:, 4 * frame : 4 * frame + SIZE] // 2 + noise
            Image.fromarray(window).save(tmp_path / f"images/{video}_{frame:03}.png")
            if frame % 2:
                save_mask(tmp_path / f"masks/{video}_{frame:03}.png", frame)
    found = propose(tmp_path)
    said = "\n".join(found.said)
    assert "frames of 5 sequences: a (16), b (16), c (16), d (16) and 1 more" in said
    videos = {name: {line[0] for line in lines} for name, lines in found.lists.items()}
    assert len(videos["val"]) == 1
    assert videos["labeled"] == videos["unlabeled"] == set("abcde") - videos["val"]
    assert "left out: 8 unlabeled images" in said
    # Of one video blocks of frames in a row are held out.
    for file in tmp_path.rglob("[b-e]_*.png"):
        file.unlink()
    assert "blocks of 1 in a row" in "\n".join(propose(tmp_path).said)
    by_pattern = propose(tmp_path, groups=r"_0(\d)").lists
    assert {name: {line[3] for line in lines} for name, lines in by_pattern.items()} == {
        **{"labeled": {"0"}, "unlabeled": {"0"}, "val": {"1"}},
    }


def test_validation_shows_every_class_and_leaves_none_out():
    classes = {f"i{i}": frozenset({0, 1 + i % 5}) for i in range(50)} | {"rare": frozenset({0, 9})}
    chosen = choose_validation(classes, {image: image for image in classes}, 0.2, 0)
    assert len(chosen) == 10
    assert sorted(min(classes[image] - {0}) for image in chosen) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert choose_validation({"a": frozenset({1}), "b": frozenset({2})}, {"a": "a", "b": "b"}, 0.2, 0) in (["a"], ["b"])


def photo_of_same_name(path):
    save_photo(path.parents[1] / "images" / f"{path.stem}.png", 99)


def other_size(path):
    Image.open(path).resize((40, 40)).save(path)


def many_values(path):
    Image.fromarray(np.arange(40_000, dtype=np.uint16).reshape(200, 200).repeat(8, 1).repeat(8, 0)).save(path)
    save_photo(path.parents[1] / "images" / f"{path.stem}.jpg", 1, 1600)


def lossy(path):
    Image.open(path).save(path.with_suffix(".jpg"))
    path.unlink()


def shades(path):
    mask = Image.open(path).point(lambda value: 80 * value)
    mask.filter(ImageFilter.GaussianBlur(1)).save(path)


def white_among_levels(path):
    Image.open(path).point([0, 90, 255, 90, *[0] * 252]).save(path)


def second_mask(path):
    save_mask(path.parents[1] / "labels" / path.name)


@pytest.mark.parametrize(
    ("damage", "which", "message"),
    [
        (photo_of_same_name, "ak", r"masks/ak\.png: is the mask of images/ak\.jpg and of images/ak\.png by its name"),
        (other_size, "[ah]*", r"masks/\w+\.png: is 40x40 \(width x height\), its image 48x48.*\(so are 1 more\)"),
        (many_values, "ak", r"the masks hold 39999 values from 0 to 39999; class ids are 0 to 254"),
        (lossy, "*", r"masks/\w+\.jpg: is compressed with loss"),
        (shades, "*", r"the masks hold \d+ values with gaps, 0, .*, as shades have; save them without smooth edges"),
        (
            white_among_levels,
            "*",
            r"hold the values 0, 90, 255; .*255 is no class: --ignore 255, or 255 is a class: --ig",
        ),
        (second_mask, "ak*", r"images/ak\.jpg: has two masks, labels/ak\.png and masks/ak\.png; .*--masks"),
    ],
)
def test_what_cannot_be_trained_on_is_named(damage, which, message, tmp_path):
    fill(tmp_path, "images/{}.jpg", "masks/{}.png")
    for file in sorted((tmp_path / "masks").glob(f"{which}.png")):
        damage(file)
    with pytest.raises(InputError, match=message):
        propose(tmp_path)


def test_folders_without_images_or_masks_are_named(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        propose(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no images"):
        propose(tmp_path)
    fill(tmp_path, "{}.jpg", "", labeled=0)
    with pytest.raises(InputError, match="holds 10 photos and no labels; add masks"):
        propose(tmp_path)
    (tmp_path / "annotations.json").write_text(json.dumps({}))
    with pytest.raises(InputError, match=r"annotations\.json: may hold labels, and is of no format that is known"):
        propose(tmp_path)
    save_mask(tmp_path / "masks" / "zz.png")
    with pytest.raises(InputError, match=r"masks/zz\.png: looks like a mask, and no image has its name"):
        propose(tmp_path)
    save_mask(tmp_path / "masks" / "ak.png")
    with pytest.raises(InputError, match="1 image has a mask"):
        propose(tmp_path)


def test_nothing_is_replaced_unless_forced(tmp_path, capsys):
    root = fill(tmp_path / "fields", "images/{}.jpg", "masks/{}.png")
    main(["init", str(root)])
    assert "wpl train" in capsys.readouterr().out
    written = root / "fields.yaml"
    written.write_text(written.read_text().replace("class_1", "stone"))
    with pytest.raises(SystemExit):
        main(["init", str(root)])
    assert "fields.yaml: is there already; --force" in capsys.readouterr().err
    assert "stone" in written.read_text()
    main(["init", str(root), "--force"])
    assert "stone" not in written.read_text()


def test_on_a_terminal_it_asks(tmp_path, capsys, monkeypatch):
    root = fill(tmp_path / "fields", "images/{}.jpg", "masks/{}.png")
    answers = iter(["a, b", "soil, crop, weed, stone", "stones", "stone"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    main(["init", str(root)])
    said = capsys.readouterr().out
    assert "2 different names; give 4" in said
    assert "'stones' is not a class; did you mean stone?" in said
    description = load_description(root / "fields.yaml")
    assert description.classes == ("soil", "crop", "weed", "stone")
    assert description.objects == ("stone",)


def test_on_a_terminal_it_asks_what_is_ambiguous(tmp_path, capsys, monkeypatch):
    root = fill(tmp_path / "fields", "images/{}.jpg", "masks/{}.png")
    for file in (root / "masks").iterdir():
        white_among_levels(file)
    answers = iter(["3", "2", "", ""])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    main(["init", str(root)])
    assert "hold the values 0, 90, 255\n  1: 255 is no class\n  2: 255 is a class\n" in capsys.readouterr().out
    assert len(load_description(root / "fields.yaml").classes) == 3


def test_check_says_what_a_folder_is_taken_for_and_writes_nothing(tmp_path, capsys):
    root = fill(tmp_path / "fields", "images/{}.jpg", "masks/{}.png")
    for file in (root / "masks").iterdir():
        white_for_one(np.asarray(Image.open(file))).save(file)
    before = sorted(tmp_path.rglob("*"))
    assert main(["check", str(root)]) == 0
    assert "- masks of the values 0, 255, gray\n" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "objects"),
    [
        ("camvid", "pole, sign, car, pedestrian, bicyclist"),
        ("digits", "class_1, class_2, class_3, class_4, class_5, class_6, class_7, class_8, class_9, class_10"),
    ],
)
def test_real_folders(name, objects, shared, tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).symlink_to(shared / name / part)
    if (shared / name / "classes.txt").is_file():
        (tmp_path / "classes.txt").symlink_to(shared / name / "classes.txt")
    found = propose(tmp_path)
    assert found.templates == ("images/{id}.jpg", "masks/{id}.png")
    assert set(objects.split(", ")) <= set(found.objects) <= {*objects.split(", "), "fence"}
    if name == "camvid":
        assert {re.split("_|f", line)[0] for line in found.lists["val"]} == {"Seq05VD"}
    else:
        assert found.classes[0] == "background"


def test_large_folders_take_little_time(tmp_path):
    """10,000 images are to take less than a minute; reading is proportional to their number, so is all else here."""
    start = time.process_time()
    classes = {f"i{i}": frozenset(range(i % 3, 20, 1 + i % 4)) for i in range(10_000)}
    assert len(choose_validation(classes, {image: image for image in classes}, 0.2, 0)) == 500
    fill(tmp_path, "images/{}.jpg", "masks/{}.png", count=20, labeled=20)
    for part in ("images", "masks"):
        files = sorted((tmp_path / part).iterdir())
        for i in range(500):
            (tmp_path / part / f"{i:05}{files[0].suffix}").symlink_to(files[i % len(files)])
    assert len(propose(tmp_path).lists["val"]) == 104
    assert time.process_time() - start < 15


def test_photos_with_rasterized_polygons(shared, tmp_path):
    """Two thirds of COCO128 with masks beside the photos, and the names of their classes."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(shared / "coco128/annotations/instances_train2017.json")
    labeled = [image for index, image in enumerate(coco.imgs.values()) if index % 3]
    annotations = {image["id"]: coco.loadAnns(coco.getAnnIds(image["id"])) for image in labeled}
    categories = sorted({a["category_id"] for found in annotations.values() for a in found})
    root = tmp_path / "street"
    root.mkdir()
    for image in coco.imgs.values():
        (root / image["file_name"]).symlink_to(shared / "coco128/train2017" / image["file_name"])
    for image in labeled:
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in annotations[image["id"]]:
            mask[coco.annToMask(annotation) > 0] = 1 + categories.index(annotation["category_id"])
        Image.fromarray(mask).save(root / f"{Path(image['file_name']).stem}_mask.png")
    names = [coco.cats[category]["name"] for category in categories]
    (root / "labels.txt").write_text("\n".join(names))
    found = propose(root)
    assert found.templates == ("{id}.jpg", "{id}_mask.png")
    assert found.classes == ["background", *names]
    assert {"person", "dog", "car"} <= set(found.objects)
    assert len(found.lists["unlabeled"]) == len(coco.imgs) - len(labeled)
    assert not any("sequence" in line for line in found.said)
    found.write()
    problems = report_dataset(load_description(found.path), 90).problems
    assert [problem for problem in problems if "no pixel is labeled" not in problem] == []


@pytest.mark.slow
def test_three_commands_lead_from_a_folder_to_a_model(tmp_path):
    fill(tmp_path / "fields", "images/{}.jpg", "masks/{}.png")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "WPL_D2_CACHE": str(tmp_path / "cache")}
    steps = ["SOLVER.MAX_ITER", "2"]
    for words in (["init", "fields"], ["check", "fields/fields.yaml"], ["train", "fields/fields.yaml", *steps]):
        command = [sys.executable, "-m", "wpl_d2.cli", *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "INPUT.CROP_SIZE (64, 64): the whole of images of 48x48" in done.stdout
    assert (tmp_path / "output/fields/model_final.pth").is_file()


def test_a_range_is_proposed_for_images_of_more_bits_and_holds(tmp_path):
    fill(tmp_path, "images/{}.png", "masks/{}.png")
    for file in (tmp_path / "images").iterdir():
        with Image.open(file) as photo:
            gray = np.asarray(photo.convert("L")).astype(np.uint16)
        Image.fromarray(gray * 16 + 1000).save(file)
    proposal = propose(tmp_path)
    low, high = proposal.pixels["value_range"]
    assert list(proposal.pixels) == ["value_range"] and 1000 < low < 1800 < 4200 < high < 5080
    assert f"black and white: [{low}, {high}], the percentiles 0.5 and 99.5 of the images' values" in proposal.said
    proposal.write()
    assert "# The images' values that are black and white; what" in proposal.path.read_text()
    description = load_description(proposal.path)
    assert description.layout.value_range == ((low, high),) * 3
    assert not any("value_range" in text for text in report_dataset(description, 20).notes)


def test_channels_that_are_no_colors_are_described_and_left_to_be_named(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    fill(tmp_path, "images/{}.png", "masks/{}.png")
    for file in (tmp_path / "images").iterdir():
        with Image.open(file) as photo:
            pixels = np.asarray(photo).astype(np.uint16)
        bands = np.concatenate([pixels * 16, pixels[..., :2] * 40], axis=2)
        tifffile.imwrite(file.with_suffix(".tif"), bands, photometric="minisblack", planarconfig="contig")
        file.unlink()
    proposal = propose(tmp_path)
    proposal.write()
    layout = load_description(proposal.path).layout
    assert len(layout.channels) == len(layout.value_range) == 5 and layout.value_range[0] != layout.value_range[4]
    assert "images of 5 channels; `channels` can say which are red, green and blue" in proposal.said
