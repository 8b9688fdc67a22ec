"""Every format against the same labels as index masks: masks, checks, two steps of training and what is drawn."""

import base64
import contextlib
import importlib.util
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import CLASSES, SMALL, make_tree
from PIL import Image
from pycocotools import mask as coco_mask

from wpl_d2.cli import main
from wpl_d2.data import load_description
from wpl_d2.data.image_io import read_mask, read_record_mask
from wpl_d2.data.labels import LABEL_FORMATS

spec = importlib.util.spec_from_file_location("npy_labels", Path(__file__).parents[3] / "docs/examples/npy_labels.py")
spec.loader.exec_module(importlib.util.module_from_spec(spec))
LISTS = ("labeled", "unlabeled", "val")
COLORS = np.array([(0, 0, 0), (250, 50, 83), (51, 221, 255)], dtype=np.uint8)
COLOR_OF = dict(zip(CLASSES, COLORS.tolist(), strict=True))
VOID = (255, 255, 255)


def store_values(tree, masks):
    """Values of 16 bits in a TIFF, of which two stand for one class."""
    for name, mask in masks.items():
        values = np.array([0, 255, 700], dtype=np.uint16)[np.minimum(mask, 2)]
        values[10:15][values[10:15] == 255] = 300
        values[mask == 255] = 90
        Image.fromarray(values).save(tree.root / f"masks/{name}.tif", compression="tiff_lzw")
    tree.describe(
        mask="masks/{id}.tif",
        labels={"format": "masks", "values": {0: "ground", 255: "box", 300: "box", 700: "ball", 90: "ignore"}},
    )


def store_offset(tree, masks):
    """As ADE20K's: from 1, and 0 is no class; and stored as colors."""
    for name, mask in masks.items():
        tree.write_mask(name, np.repeat((mask + 1)[..., None], 3, axis=2))
    tree.describe(ignore=0, labels={"format": "masks", "offset": -1})


def store_colors(tree, masks):
    for name, mask in masks.items():
        colors = COLORS[np.minimum(mask, 2)]
        colors[mask == 255] = VOID
        tree.write_mask(name, colors)
    tree.describe(labels={"format": "color_masks", "colors": COLOR_OF | {"ignore": [list(VOID)]}})


def store_palette(tree, masks):
    """Indices that mean nothing, with the colors of the classes."""
    for name, mask in masks.items():
        indices = np.array([7, 2, 5], dtype=np.uint8)[np.minimum(mask, 2)]
        indices[mask == 255] = 30
        image = Image.fromarray(indices)
        palette = np.full((256, 3), 99, dtype=np.uint8)
        palette[[7, 2, 5]] = COLORS
        image.putpalette(palette.tobytes())
        image.save(tree.mask(name))
    tree.describe(labels={"format": "color_masks", "colors": COLOR_OF, "other": "ignore"})


def store_classes(tree, masks):
    for name, mask in masks.items():
        tree.mask(name).unlink()
        for index, class_name in enumerate(CLASSES):
            # What lies below another class is drawn too.
            shown = (mask == index) | ((index == 0) & (mask != 255))
            Image.fromarray(shown.astype(np.uint8) * 255).save(tree.root / f"masks/{name}_{class_name}.png")
    files = {"format": "class_masks", "files": "masks/{id}_{class}.png", "uncovered": "ignore"}
    tree.describe(mask=None, labels=files)


def instances_of(mask):
    """The components of all classes, what is no class left out: class, and the pixels."""
    for index, class_name in reversed(list(enumerate(CLASSES))):
        count, numbers = cv2.connectedComponents((mask == index).astype(np.uint8))
        for number in range(1, count):
            yield class_name, numbers == number


def polygon_of(pixels):
    """Around all rows of pixels, one after the other; what leads there and back encloses nothing."""
    points = []
    for y, row in enumerate(pixels):
        edges = np.flatnonzero(np.diff(np.pad(row.astype(int), 1)))
        for x0, x1 in edges.reshape(-1, 2).tolist():
            points += [(0, 0), (x0, y), (x1, y), (x1, y + 1), (x0, y + 1), (x0, y), (0, 0)]
    return points


def store_coco(tree, masks):
    """Compressed run lengths, of two files whose category ids differ."""
    for number in (0, 1):
        names = sorted(masks)[number::2]
        content = {"categories": [{"id": 10 * number + i, "name": name} for i, name in enumerate(CLASSES)]}
        content["images"] = [{"id": n, "file_name": f"{n}.png", "height": 50, "width": 60} for n in names]
        content["annotations"] = []
        for name in names:
            for class_name, pixels in instances_of(masks[name]):
                rle = coco_mask.encode(np.asfortranarray(pixels.view(np.uint8)))
                outline = {"size": rle["size"], "counts": rle["counts"].decode()}
                category = 10 * number + CLASSES.index(class_name)
                content["annotations"].append({"image_id": name, "category_id": category, "segmentation": outline})
        (tree.root / f"{number}.json").write_text(json.dumps(content))
    describe_shapes(tree, "coco", files=["0.json", "1.json"])


def store_coco_panoptic(tree, masks):
    """Segments whose ids have more than eight bits, and PNGs in a folder of their own."""
    content = {"categories": [{"id": 7 + i, "name": name, "isthing": i % 2} for i, name in enumerate(CLASSES)]}
    content["images"] = [{"id": number, "file_name": f"{name}.png"} for number, name in enumerate(masks)]
    content["annotations"] = []
    for number, (name, mask) in enumerate(masks.items()):
        ids, segments = np.zeros(mask.shape, dtype=np.int32), []
        for class_name, pixels in instances_of(mask):
            segments.append({"id": 40000 * (len(segments) + 1), "category_id": 7 + CLASSES.index(class_name)})
            ids[pixels] = segments[-1]["id"]
        tree.write_mask(name, np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=2).astype(np.uint8))
        content["annotations"].append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
    (tree.root / "panoptic.json").write_text(json.dumps(content))
    (tree.root / "masks").rename(tree.root / "panoptic")
    tree.describe(mask=None, labels={"format": "coco_panoptic", "files": "panoptic.json", "masks": "panoptic"})


def store_labelme(tree, masks):
    (tree.root / "labelme").mkdir()
    for name, mask in masks.items():
        shapes = []
        for class_name, pixels in instances_of(mask):
            png = io.BytesIO()
            Image.fromarray(pixels.view(np.uint8) * 255).save(png, "PNG")
            drawn = {"mask": base64.b64encode(png.getvalue()).decode(), "points": [[0, 0], [59, 49]]}
            shapes.append({"label": class_name, "shape_type": "mask", "group_id": None, **drawn})
        content = {"version": "5.5.0", "imagePath": f"../images/{name}.png", "shapes": shapes}
        (tree.root / f"labelme/{name}.json").write_text(json.dumps(content))
    describe_shapes(tree, "labelme", files="labelme/{id}.json")


def store_cvat(tree, masks):
    lines = ["<annotations><version>1.1</version>"]
    for name, mask in masks.items():
        lines.append(f'<image id="0" name="{name}.png" width="60" height="50">')
        for class_name, pixels in instances_of(mask):
            changes = np.flatnonzero(np.diff(pixels.ravel(), prepend=False))
            runs = ", ".join(map(str, np.diff(changes, prepend=0, append=pixels.size)))
            lines.append(f'<mask label="{class_name}" rle="{runs}" left="0" top="0" width="60" height="50"/>')
        lines.append("</image>")
    (tree.root / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))
    describe_shapes(tree, "cvat", files="annotations.xml")


def store_via(tree, masks):
    images = {}
    for name, mask in masks.items():
        regions = []
        for class_name, pixels in instances_of(mask):
            xs, ys = zip(*polygon_of(pixels), strict=True)
            outline = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
            regions.append({"shape_attributes": outline, "region_attributes": {"class": class_name}})
        images[f"{name}-1"] = {"filename": f"{name}.png", "size": -1, "regions": regions}
    (tree.root / "via.json").write_text(json.dumps(images))
    describe_shapes(tree, "via", files="via.json")


def store_label_studio(tree, masks):
    """Brush masks of a color everywhere, whose opacity is the mask; stored value by value, a row at a time."""
    tasks = []
    for name, mask in masks.items():
        results = []
        for class_name, pixels in instances_of(mask):
            rows = np.insert(np.full((50, 60, 3), 128, np.uint8), 3, pixels * 255, axis=2).reshape(50, -1)
            bits = f"{rows.size:032b}" + f"{7:05b}" + f"{15:04b}" * 4
            for row in rows:
                bits += f"0{0:02b}{row.size - 1:016b}" + "".join(f"{value:08b}" for value in row)
            bits += "0" * (-len(bits) % 8)
            rle = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
            value = {"format": "rle", "rle": rle, "brushlabels": [class_name]}
            results.append({"type": "brushlabels", "value": value, "original_width": 60, "original_height": 50})
        task = {"id": name, "data": {"image": f"s3://bucket/{name}.png"}, "annotations": [{"result": results}]}
        tasks.append(task)
    (tree.root / "export.json").write_text(json.dumps(tasks))
    describe_shapes(tree, "label_studio", files="export.json")


def store_yolo(tree, masks):
    (tree.root / "labels").mkdir()
    for name, mask in masks.items():
        lines = []
        for class_name, pixels in instances_of(mask):
            corners = " ".join(f"{x / 60:.6f} {y / 50:.6f}" for x, y in polygon_of(pixels))
            lines.append(f"{CLASSES.index(class_name)} {corners}\n")
        (tree.root / f"labels/{name}.txt").write_text("".join(lines))
    (tree.root / "yolo.yaml").write_text(json.dumps({"names": CLASSES}))
    describe_shapes(tree, "yolo", names="yolo.yaml")


def store_npy(tree, masks):
    """The example of the documentation."""
    for name, mask in masks.items():
        tree.mask(name).unlink()
        np.save(tree.root / f"masks/{name}.npy", mask)
    tree.describe(mask=None, labels={"format": "npy", "files": "masks/{id}.npy"})


def describe_shapes(tree, name, **settings):
    for mask in (tree.root / "masks").iterdir():
        mask.unlink()
    tree.describe(mask=None, labels={"format": name, "uncovered": "ignore", **settings})


STORED = {
    "masks": store_values,
    "masks, offset": store_offset,
    "color_masks": store_colors,
    "color_masks, palette": store_palette,
    "class_masks": store_classes,
    "npy": store_npy,
    "coco": store_coco,
    "coco_panoptic": store_coco_panoptic,
    "labelme": store_labelme,
    "cvat": store_cvat,
    "via": store_via,
    "label_studio": store_label_studio,
    "yolo": store_yolo,
}
"""By format, and what is special: a function that stores the masks of a tree otherwise, and describes them so."""


def store(tree, how):
    names = [path.stem for path in (tree.root / "masks").iterdir()]
    STORED[how](tree, {name: read_mask(tree.mask(name)) for name in names})


def test_each_format_is_tested():
    assert {kind.name for _, kind in LABEL_FORMATS} == {how.partition(",")[0] for how in STORED}


@pytest.mark.parametrize("how", STORED)
def test_labels_are_the_same_as_index_masks(tree, how):
    def read():
        description = load_description(tree.yaml)
        return [read_record_mask(record) for name in LISTS for record in description.records(name)]

    before = read()
    store(tree, how)
    assert all(map(np.array_equal, read(), before)) and len(before) == 10
    assert all(map(np.array_equal, read(), before))  # out of the cache


def train_two_steps(folder, how=None):
    """What a check prints, the metrics of two steps and of an evaluation, and the pictures of the truth."""
    tree, said = make_tree(folder), io.StringIO()
    if how:
        store(tree, how)
    options = ["SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "2", "DATALOADER.NUM_WORKERS", "0", "MODEL.WEIGHTS", ""]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WPL_D2_CACHE", str(folder / "cache"))
        assert main(["train", str(tree.yaml), *map(str, SMALL), *options, "OUTPUT_DIR", str(folder / "out")]) == 0
        converted = list((folder / "cache/labels").glob("*/*.png"))
        assert len(converted) == (5 if how else 0)  # those of labeled and validation images alone
        with contextlib.redirect_stdout(said):
            assert main(["check", str(tree.yaml)]) == 0
    lines = [json.loads(line) for line in (folder / "out/metrics.json").read_text().splitlines()]
    figures = [{key: v for key, v in line.items() if "loss" in key or "sem_seg" in key} for line in lines]
    drawn = {path.name: path.read_bytes() for path in (folder / "out").rglob("*_truth.webp")}
    return said.getvalue().partition("\n\n")[2], figures, drawn  # without the name of the data set


@pytest.fixture(scope="module")
def as_index_masks(tmp_path_factory):
    return train_two_steps(tmp_path_factory.mktemp("as_index_masks"))


@pytest.mark.slow
@pytest.mark.parametrize("how", STORED)
def test_it_is_checked_trained_on_evaluated_and_drawn_as_index_masks_are(tmp_path, as_index_masks, how):
    said, figures, drawn = as_index_masks
    assert drawn and any("sem_seg/mIoU" in line for line in figures) and said.endswith("0 problems\n")
    assert train_two_steps(tmp_path, how) == as_index_masks
