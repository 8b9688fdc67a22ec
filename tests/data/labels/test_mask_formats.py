from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from wpl_d2.data import load_description
from wpl_d2.data.image_io import read_record_mask
from wpl_d2.utils.errors import InputError


def read(tree, name="labeled0"):
    return read_record_mask(next(r for r in load_description(tree.yaml).records("labeled") if r["image_id"] == name))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"values": {0: "ground"}}, r"'labels': .* names no format; write {format: masks"),
        ({"format": "mask"}, "'labels': 'format': 'mask' is not known; did you mean masks"),
        ({"format": "masks", "value": {}}, "'labels': unknown key 'value'; did you mean values"),
        ({"format": "masks", "values": [0, 1]}, r"'labels': 'values': \[0, 1\] is no table"),
        (
            {"format": "masks", "values": {0: "grund"}},
            "0: 'grund' is not one of 'classes'; did you mean ground",
        ),
        ({"format": "masks", "values": {"0": "ground"}}, "'labels': 'values': '0' is not an integer"),
        ({"format": "masks", "values": {0: "ground"}, "offset": 1}, "both 'values' and 'offset'"),
        ({"format": "masks", "offset": -254}, "'ignore' is 255, which is .* in 'labels'; give it another value"),
        ({"format": "masks", "other": "void"}, "'other': 'void' is not one of 'classes'"),
        ({"format": "color_masks"}, "'labels': 'colors': is missing; write"),
        ({"format": "color_masks", "colors": {"box": [1, 2]}}, r"'colors': box: \[1, 2\] is not a color"),
        ({"format": "color_masks", "colors": {"box": [1, 2, 3], "ball": [1, 2, 3]}}, "is the color of two classes"),
        ({"format": "class_masks"}, "'labels': the key 'files' is missing"),
        ({"format": "class_masks", "files": "masks/{id}.png"}, "'files': 'masks/{id}.png' has no {class}"),
        ({"format": "class_masks", "files": {"box": "masks/box.png"}}, "'files': 'masks/box.png' has no {id}"),
    ],
)
def test_wrong_settings_are_refused_in_words(tree, labels, message):
    tree.describe(labels=labels, mask=None if labels.get("format") == "class_masks" else "masks/{id}.png")
    with pytest.raises(InputError, match=message) as error:
        load_description(tree.yaml)
    assert str(error.value).startswith(f"{tree.yaml}: ")


def test_a_class_that_is_called_as_what_stands_for_none_is_refused(tree):
    tree.describe(classes=["ground", "ignore"], objects=[], labels={"format": "masks", "values": {0: "ground"}})
    with pytest.raises(InputError, match="'ignore' stands for no class here; call the class otherwise"):
        load_description(tree.yaml)


def test_a_template_of_masks_that_is_not_read_is_refused(tree):
    tree.describe(labels={"format": "class_masks", "files": "{class}/{id}.png"})
    with pytest.raises(InputError, match="'mask' is not read, since 'labels' says where labels are; remove it"):
        load_description(tree.yaml)


def test_values_that_are_not_listed_are_named_with_their_share(tree):
    mask = np.zeros((50, 60), dtype=np.uint8)
    mask[:5] = 7
    mask[5, :6] = 9
    tree.write_mask("labeled0", mask)
    tree.describe(labels={"format": "masks", "values": {0: "ground", 1: "box"}})
    with pytest.raises(InputError) as error:
        read(tree)
    assert str(error.value).startswith(
        f"{tree.mask('labeled0')}: holds the values 7 (10 % of the pixels), 9 (0.2 % of the pixels), which "
        f"{tree.yaml}: 'labels' does not list; list them in its 'values', or write `other: ignore` there"
    )
    tree.describe(labels={"format": "masks", "values": {0: "ground", 1: "box"}, "other": "ball"})
    assert np.array_equal(read(tree), np.where(mask, 2, 0))


def test_colors_that_are_not_listed_are_named_with_their_share(tree):
    colors = np.zeros((50, 60, 3), dtype=np.uint8)
    colors[:25] = 200
    colors[10, :15] = np.arange(15)[:, None] + [100, 0, 255]
    tree.write_mask("labeled0", colors)
    tree.describe(labels={"format": "color_masks", "colors": {"ground": [0, 0, 0]}})
    with pytest.raises(InputError) as error:
        read(tree)
    said = str(error.value)
    assert said.startswith(
        f"{tree.mask('labeled0')}: holds the colors [200, 200, 200] (50 % of the pixels), [100, 0, 255]"
    )
    assert "and 11 more, which" in said and "export masks without smooth edges" in said


@pytest.mark.parametrize("labels", [{"format": "masks"}, {"format": "color_masks", "colors": {"ground": [0, 0, 0]}}])
def test_lossy_masks_are_refused(tree, labels):
    Image.fromarray(np.zeros((50, 60), dtype=np.uint8)).save(tree.mask("labeled0"), format="JPEG")
    tree.describe(labels=labels)
    with pytest.raises(InputError, match=r"labeled0\.png: is a JPEG file"):
        read(tree)


@pytest.mark.parametrize("labels", [{"format": "masks"}, {"format": "color_masks", "colors": {"ground": [0, 0, 0]}}])
@pytest.mark.parametrize("kind", ["colors of 16 bits", "fractional numbers"])
def test_values_that_are_neither_ids_nor_colors_are_refused(tree, labels, kind):
    if kind == "fractional numbers":
        Image.fromarray(np.zeros((50, 60), dtype=np.float32)).save(tree.mask("labeled0"), format="TIFF")
    else:
        cv2.imwrite(str(tree.mask("labeled0")), np.zeros((50, 60, 3), dtype=np.uint16))
    tree.describe(labels=labels)
    with pytest.raises(InputError, match=r"labeled0\.png: is an (RGB|F) image of more than 8 bits .*; save class ids"):
        read(tree)


def test_colors_in_a_mask_of_values_are_refused(tree):
    tree.write_mask("labeled0", np.full((50, 60, 3), [0, 0, 1], dtype=np.uint8))
    tree.describe(labels={"format": "masks"})
    with pytest.raises(InputError, match=r"labeled0\.png: is an RGB image; .*{format: color_masks}"):
        read(tree)


def test_camvid_in_its_colors_is_camvid(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))
    description = load_description("configs/datasets/camvid.yaml", shared / "camvid")
    records = description.records("1_30_labeled")
    table = np.zeros((256, 3), dtype=np.uint8)  # what has no class is black
    table[: len(description.classes)] = description.colors
    for record in records:
        Image.fromarray(table[read_record_mask(record)]).save(tmp_path / f"{record['image_id']}.png")
    labels = {"format": "color_masks", "other": "ignore"}
    colored = replace(description, mask=f"{tmp_path}/{{id}}.png", labels=labels).records("1_30_labeled")
    assert len(records) == 12
    assert all(np.array_equal(*map(read_record_mask, pair)) for pair in zip(records, colored, strict=True))


def write_class(tree, name, class_name, pixels):
    Image.fromarray(pixels.astype(np.uint8) * 255).save(tree.root / "masks" / f"{name}_{class_name}.png")


def test_of_overlapping_classes_the_later_one_lies_on_top(tree):
    rows = np.arange(50)[:, None].repeat(60, axis=1)
    write_class(tree, "labeled0", "ball", rows > 30)
    write_class(tree, "labeled0", "box", rows > 20)
    tree.describe(mask=None, labels={"format": "class_masks", "files": "masks/{id}_{class}.png", "uncovered": "ground"})
    assert np.array_equal(read(tree), np.select([rows > 30, rows > 20], [2, 1], 0))


def test_bad_masks_of_classes_are_refused(tree):
    files = {"box": "masks/{id}_box.png", "ball": "masks/{id}_ball.png"}
    tree.describe(mask=None, labels={"format": "class_masks", "files": files})
    with pytest.raises(KeyError):  # no file, no labels
        read(tree)
    half = np.arange(60)[None, :].repeat(50, axis=0) < 30
    write_class(tree, "labeled0", "box", half)
    with pytest.raises(InputError, match=r"labeled0_box\.png: .* leave 50 % of the pixels without a class"):
        read(tree)
    write_class(tree, "labeled0", "ball", ~half[:, 1:])
    with pytest.raises(InputError, match=r"labeled0_ball\.png: is not of the size of .*labeled0_box\.png"):
        read(tree)
    Image.fromarray((half * np.arange(60)).astype(np.uint8)).save(tree.root / "masks/labeled0_ball.png")
    with pytest.raises(InputError, match=r"labeled0_ball\.png: holds the values \[0, 1, 2, 3, 4\]"):
        read(tree)


def test_masks_are_turned_as_their_orientation_says(tree):
    mask = np.zeros((60, 50), dtype=np.uint8)
    mask[:10] = 1
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(mask).save(tree.mask("labeled0"), exif=exif)
    tree.describe(labels={"format": "masks"})
    assert np.array_equal(read(tree), np.rot90(mask, -1))
    tree.describe(labels={"format": "masks"}, exif="ignore")
    assert np.array_equal(read(tree), mask)
