"""Ellipses and turned shapes, as each format writes them, against the same shapes drawn here."""

import json

import numpy as np
import pytest

from wpl_d2.data import load_description
from wpl_d2.data.image_io import read_record_mask
from wpl_d2.data.labels import LabeledImage, Shape, rasterize
from wpl_d2.data.labels.shapes import ellipse, rectangle, turn

CIRCLE = ellipse(30, 25, 10, 10)
TURNED_ELLIPSE = ellipse(30, 25, 20, 10, 30)
TURNED_BOX = turn(rectangle(20, 20, 44, 32), 30, (32, 26))  # around its center
TURNED_CORNER = turn(rectangle(24, 15, 48, 25), 30, (24, 15))  # around its upper left corner


def cvat(tag, **attributes):
    text = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    image = f'<image name="labeled0.png" width="60" height="50"><{tag} label="box" {text}/><tag label="night"/></image>'
    return "a.xml", f"<annotations><version>1.1</version>{image}</annotations>"


def via(**outline):
    region = {"shape_attributes": outline, "region_attributes": {"class": "box"}}
    return "a.json", json.dumps({"x": {"filename": "labeled0.png", "regions": [region]}})


def labelme(kind, points):
    shape = {"label": "box", "points": np.asarray(points).tolist(), "shape_type": kind}
    return "images/labeled0.json", json.dumps({"imagePath": "labeled0.png", "shapes": [shape]})


def label_studio(kind, **value):
    """In percent of 60 x 50 pixels, by a tag for the outline and one for its label."""
    same = {"id": "r", "original_width": 60, "original_height": 50}
    results = [
        same | {"type": kind, "from_name": "outline", "value": value},
        same | {"type": "labels", "from_name": "label", "value": value | {"labels": ["box"]}},
    ]
    task = {"data": {"image": "/data/upload/3/0123abcd-labeled0.png"}, "annotations": [{"result": results}]}
    return "a.json", json.dumps([task])


def test_layers_of_cvat_go_before_sizes(tree):
    large = '<box label="box" xtl="0" ytl="10" xbr="40" ybr="40" z_order="{}"/>'
    small = '<box label="ball" xtl="5" ytl="15" xbr="9" ybr="19" z_order="2"/>'
    tree.describe(mask=None, labels={"format": "cvat", "files": "a.xml", "uncovered": "ground"})
    for layer, above in ((1, 2), (3, 1)):
        image = f'<image name="labeled0.png" width="60" height="50">{large.format(layer)}{small}</image>'
        (tree.root / "a.xml").write_text(f"<annotations><version>1.1</version>{image}</annotations>")
        assert read_record_mask(load_description(tree.yaml).records("labeled")[0])[16, 6] == above


@pytest.mark.parametrize(
    ("name", "stored", "polygon"),
    [
        ("cvat", cvat("ellipse", cx=30, cy=25, rx=20, ry=10, rotation=30), TURNED_ELLIPSE),
        ("cvat", cvat("box", xtl=20, ytl=20, xbr=44, ybr=32, rotation=30), TURNED_BOX),
        ("cvat", cvat("mask", rle="0, 288", left=20, top=20, width=24, height=12), rectangle(20, 20, 44, 32)),
        ("via", via(name="circle", cx=30, cy=25, r=10), CIRCLE),
        ("via", via(name="ellipse", cx=30, cy=25, rx=20, ry=10, theta=np.pi / 6), TURNED_ELLIPSE),
        ("labelme", labelme("circle", [[30, 25], [36, 33]]), CIRCLE),
        ("labelme", labelme("oriented_rectangle", TURNED_BOX), TURNED_BOX),
        ("label_studio", label_studio("ellipse", x=50, y=50, radiusX=100 / 3, radiusY=20, rotation=30), TURNED_ELLIPSE),
        ("label_studio", label_studio("rectangle", x=40, y=30, width=40, height=20, rotation=30), TURNED_CORNER),
    ],
)
def test_it_is_drawn_where_the_tool_shows_it(tree, name, stored, polygon):
    file, content = stored
    (tree.root / file).write_text(content)
    files = {} if name == "labelme" else {"files": file}
    tree.describe(mask=None, labels={"format": name, "uncovered": "ground", **files})
    record = load_description(tree.yaml).records("labeled")[0]
    expected = rasterize(LabeledImage([Shape("box", [polygon])], "here"), (50, 60), {"box": 1}, 0)
    assert 200 < expected.mask.sum() < 700
    np.testing.assert_array_equal(read_record_mask(record), expected.mask)
