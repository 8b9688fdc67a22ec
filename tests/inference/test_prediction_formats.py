"""Masks in the formats of other tools, as those tools read them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools.coco import COCO
from test_writers import METADATA, run, segment, write_video

from wpl_d2.data import read_image, read_mask
from wpl_d2.inference.mask_formats import MASK_FORMATS
from wpl_d2.inference.mask_formats.labelme import TOLERANCE, find_polygons
from wpl_d2.inference.sources import open_source
from wpl_d2.inference.writers import PredictionWriter
from wpl_d2.utils.errors import InputError


def draw_labelme(shapes, size, ids):
    """LabelMe's `shapes_to_label`: shapes in the order of the file, their outlines included; 255 where none is."""
    canvas = Image.new("L", size, 255)
    for shape in shapes:
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in shape["points"]], *[ids[shape["label"]]] * 2)
    return np.asarray(canvas)


def fill_centers(polygons, shape):
    """A pixel is of the last polygon that holds its center."""
    drawn = np.full(shape, 255, np.uint8)
    centers = [(x + 0.5, y + 0.5) for y in range(shape[0]) for x in range(shape[1])]
    for class_id, points in polygons:
        outline = points.astype(np.float32)[:, None]
        inside = [cv2.pointPolygonTest(outline, center, False) >= 0 for center in centers]
        drawn[np.reshape(inside, shape)] = class_id
    return drawn


def read_coco(file, name):
    coco = COCO(file)
    image = next(image for image in coco.dataset["images"] if image["file_name"] == name)
    drawn = np.full((image["height"], image["width"]), 255, np.uint8)
    for annotation in coco.imgToAnns[image["id"]]:
        mask = coco.annToMask(annotation).astype(bool)
        assert (drawn[mask] == 255).all() and mask.sum() == annotation["area"]
        x, y, w, h = annotation["bbox"]
        assert mask[y : y + h, x : x + w].sum() == annotation["area"]
        drawn[mask] = annotation["category_id"]
    return drawn


def label_maps(count, size):
    """Label maps of three classes with islands, holes, lines and single pixels."""
    for seed in range(count):
        noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
        smooth = cv2.GaussianBlur(noise, None, 3) * 6 + cv2.GaussianBlur(noise, None, 0.8) * (seed % 3)
        yield np.digitize(smooth, [-0.5, 0.5]).astype(np.uint8)


def test_exact_outlines_are_read_back_to_the_last_pixel():
    for labels in label_maps(5, (20, 24)):
        polygons = find_polygons(labels, tolerance=0)
        assert (fill_centers(polygons, labels.shape) == labels).all()
        shapes = [{"label": class_id, "points": points.tolist()} for class_id, points in polygons]
        assert (draw_labelme(shapes, labels.shape[::-1], range(3)) == labels).all()


def test_simplified_polygons_stay_within_the_stated_error():
    for labels in label_maps(10, (90, 120)):
        polygons = find_polygons(labels)
        vertices, exact = (sum(len(points) for _, points in of) for of in (polygons, find_polygons(labels, 0)))
        assert vertices < 0.7 * exact
        shapes = [{"label": class_id, "points": points.tolist()} for class_id, points in polygons]
        drawn = draw_labelme(shapes, labels.shape[::-1], range(3))
        assert deviation(drawn, labels) <= TOLERANCE + 0.5


def deviation(drawn, labels):
    """The largest distance in pixels of a pixel that is drawn wrongly from where its class, or the image, ends."""
    worst = 0.0
    for class_id in np.unique(labels):
        own = labels == class_id
        padded = np.pad(own, 1).astype(np.uint8)
        distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        worst = max(worst, float(distance[own & (drawn != class_id)].max(initial=0)))
    return worst


def save_photos(shared, folder):
    files = sorted((shared / "coco128/train2017").iterdir())[:3]
    for file in files:
        folder.mkdir(exist_ok=True)
        Image.open(file).resize((120, 90)).save(folder / f"{file.stem}.png")
    return [f"{file.stem}.png" for file in files]


@pytest.mark.parametrize("mask_format", MASK_FORMATS)
def test_each_format_holds_the_predictions_of_real_photos(mask_format, shared, tmp_path):
    if mask_format == "geotiff":
        pytest.importorskip("rasterio")
    names = save_photos(shared, tmp_path / "in")
    run(tmp_path / "in", tmp_path / "out", mask_format=mask_format)
    for name in names:
        pixels = read_image(tmp_path / "in" / name).astype(np.float32).mean(axis=2)
        labels = (pixels > 127).astype(np.uint8)
        if mask_format == "index_png":
            drawn = read_mask(tmp_path / "out/masks" / name)
        elif mask_format == "geotiff":
            drawn = read_mask((tmp_path / "out/masks" / name).with_suffix(".tif"))
        elif mask_format == "coco":
            drawn = read_coco(tmp_path / "out/masks.json", name)
        else:
            file = (tmp_path / "out/labelme" / name).with_suffix(".json")
            content = json.loads(file.read_text())
            assert (file.parent / content["imagePath"]).resolve() == tmp_path / "in" / name
            assert (content["imageWidth"], content["imageHeight"]) == (120, 90)
            drawn = draw_labelme(content["shapes"], (120, 90), {"dark": 0, "bright": 1})
        assert deviation(drawn, labels) <= (TOLERANCE + 0.5 if mask_format == "labelme" else 0)
    # Its own results are no input of a later run, and are written again.
    assert run(tmp_path / "in", tmp_path / "in", mask_format=mask_format)[1] == []
    assert run(tmp_path / "in", tmp_path / "in", mask_format=mask_format)[1] == []


def test_objects_are_annotations_of_their_own_and_other_classes_are_one(tmp_path):
    pixels = np.zeros((20, 20), np.uint8)
    pixels[2:6, 2:6] = pixels[6:9, 6:9] = pixels[:, 15:17] = 255  # the first two touch at a corner
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in/a.png")
    run(tmp_path / "in", tmp_path / "out", mask_format="coco")
    annotations = json.loads((tmp_path / "out/masks.json").read_text())["annotations"]
    found = [(entry["category_id"], entry["bbox"]) for entry in annotations]
    assert sorted(found) == [(0, [0, 0, 20, 20]), (1, [2, 2, 7, 7]), (1, [15, 0, 2, 20])]
    assert {entry["id"] for entry in annotations} == {1, 2, 3}


def test_a_later_run_keeps_the_annotations_of_other_images(tmp_path):
    for name, value in (("a", 0), ("b", 255)):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.new("RGB", (6, 5), (value,) * 3).save(tmp_path / f"in/{name}.png")
        run(tmp_path / f"in/{name}.png", tmp_path / "out", mask_format="coco")
    run(tmp_path / "in/b.png", tmp_path / "out", mask_format="coco")
    assert len(COCO(tmp_path / "out/masks.json").getImgIds()) == 2
    for name, value in (("a.png", 0), ("b.png", 1)):
        assert (read_coco(tmp_path / "out/masks.json", name) == value).all()


@pytest.mark.parametrize("mask_format", ["coco", "labelme"])
def test_labels_of_others_are_not_written_over(mask_format, tmp_path):
    Image.new("RGB", (6, 5)).save(tmp_path / "a.png")
    place = tmp_path / MASK_FORMATS[mask_format].place
    place.write_text("{}")
    source = open_source(str(tmp_path / "a.png"))
    with pytest.raises(InputError, match=f"{place.name}: is not an earlier result"):
        PredictionWriter(tmp_path, METADATA, False, source, mask_format)
    assert place.read_text() == "{}"


def test_labelme_takes_no_video(tmp_path):
    write_video(tmp_path / "drive.avi", [0, 255])
    with pytest.raises(InputError, match="LabelMe shows image files, and drive is a video"):
        run(tmp_path / "drive.avi", tmp_path / "out", mask_format="labelme")
    run(tmp_path / "drive.avi", tmp_path / "out", segment, None, mask_format="coco")
    assert (read_coco(tmp_path / "out/masks.json", str(Path("drive/000001"))) == 1).all()
