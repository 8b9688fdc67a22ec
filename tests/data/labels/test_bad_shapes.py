"""Files of labels that are wrong: each error names the file, what is wrong and how to mend it."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from wpl_d2.data import load_description
from wpl_d2.data.dataset_report import report_dataset
from wpl_d2.data.image_io import read_record_mask
from wpl_d2.utils.errors import InputError

OUTLINE = [[5, 5, 30, 5, 30, 20, 5, 20]]


class Coco(dict):
    """A file that labels `labeled0`, to be changed by its keys."""

    def __init__(self, **changes):
        super().__init__(
            images=[{"id": 7, "file_name": "labeled0.png", "height": 50, "width": 60}],
            categories=[{"id": 1, "name": "box"}],
            annotations=[{"id": 3, "image_id": 7, "category_id": 1, "segmentation": OUTLINE}],
            **changes,
        )

    def annotate(self, **changes):
        self["annotations"][0] |= changes
        return self


def cvat(body, version="1.1"):
    image = f'<image name="labeled0.png" width="60" height="50">{body}</image>'
    return f"<annotations><version>{version}</version>{image}</annotations>"


def labelme(**shape):
    shape = {"label": "box", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"} | shape
    return {"imagePath": "labeled0.png", "imageHeight": 50, "imageWidth": 60, "shapes": [shape]}


def via(outline=None, **attributes):
    outline = outline or {"name": "rect", "x": 1, "y": 1, "width": 9, "height": 9}
    region = {"shape_attributes": outline, "region_attributes": {"class": "box"} | attributes}
    return {"labeled0.png1": {"filename": "labeled0.png", "size": 1, "regions": [region]}}


def task(*results, image="a/labeled0.png", **changes):
    return {"id": 4, "data": {"image": image}, "annotations": [{"result": list(results)}]} | changes


def result(value=None, kind="polygonlabels", labels=("box",), **changes):
    value = {"points": [[10, 10], [50, 10], [50, 40]]} if value is None else value
    whole = {"id": "r1", "type": kind, "from_name": kind, "value": value | {kind: list(labels)}}
    return whole | {"original_width": 60, "original_height": 50} | changes


RECTANGLE = {"x": 10, "y": 10, "width": 20, "height": 20}


def store(tree, name, content):
    file = tree.root / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def describe(tree, **settings):
    tree.describe(mask=None, labels={"uncovered": "ground", **settings})
    return load_description(tree.yaml)


def read_first(tree, **settings):
    """The mask of `labeled0`; errors that concern the set, and those that concern the image, alike."""
    return read_record_mask(describe(tree, **settings).records("labeled")[0])


SET_FILES = {"coco": "a.json", "cvat": "a.xml", "via": "a.json", "label_studio": "a.json"}
TURNED = {"annotations": [Coco()["annotations"][0] | {"segmentation": {"size": [60, 50], "counts": [3000]}}]}
IMAGE = {"id": 7, "file_name": "labeled0.png"}
BAD = {
    "coco": [
        (
            Coco().annotate(segmentation=[[5, 5, 30, 5]]),
            "image 'labeled0.png': .*'box' is a polygon of 2 points; delete",
        ),
        (Coco().annotate(segmentation=[[5, 5, 30, 5, 30]]), "annotation 3: has a polygon of 5 numbers, which are no"),
        (Coco().annotate(segmentation=[]), "annotation 3: is a box without an outline.*draw it, or remove"),
        (Coco().annotate(segmentation={"size": [50, 60], "counts": [5, 8]}), "run lengths of 13 pixels, .* 60 x 50"),
        (Coco().annotate(segmentation={"size": [50, 60], "counts": [[]]}), "is not as COCO writes it .*export it anew"),
        (
            Coco().annotate(segmentation={"size": [60, 50], "counts": [3000]}),
            "has run lengths for images of other sizes",
        ),
        (Coco() | {"images": [IMAGE]} | TURNED, "labels an image of 50 x 60 pixels, but the image has 60 x 50"),
        (Coco().annotate(image_id=8), "has annotations of the image id 8 .*but no image of it"),
        (Coco().annotate(image_id=None), "an annotation has no 'image_id': {'id': 3.*export the file anew"),
        (Coco().annotate(category_id=2), "annotation 3 has the category id 2, which is not in 'categories'"),
        (Coco() | {"images": [IMAGE, IMAGE]}, "has the image id 7 twice"),
        (Coco() | {"images": [IMAGE | {"height": 60, "width": 50}]}, "an image of 50 x 60 .* the image has 60 x 50"),
        (
            Coco() | {"images": [IMAGE | {"file_name": f"{part}/labeled0.png", "id": part} for part in (7, 8)]},
            "image '7/labeled0.png' and .*image '8/labeled0.png': both label .*remove one",
        ),
        (
            Coco() | {"categories": [{"id": 1, "name": "crate"}]},
            "has the categories 'crate', which .*: {NAME: CLASS}, or",
        ),
        ({}, "has no 'images'"),
        ([], "has no 'images'"),
        ("7", "is neither a list nor an object of JSON"),
        ("", "is neither a list nor an object of JSON"),
        (json.dumps(Coco())[:-9], "is not JSON, or not whole .*near byte .*export it anew"),
    ],
    "cvat": [
        (cvat('<points label="box" points="1,1"/>'), "image 'labeled0.png': a points of 'box' has no area; draw"),
        (cvat('<polygon label="box" points="1,1;2,2"/>'), "a polygon of 2 points"),
        (cvat('<mask label="box" rle="1,2" left="0" top="0" width="3" height="3"/>'), "is not as CVAT writes it"),
        (cvat('<box label="crate" xtl="1" ytl="1" xbr="9" ybr="9"/>'), "has the categories 'crate'"),
        (cvat("", version="2.0"), "is of version '2.0' of CVAT's XML, and only '1.1' is known; export it as"),
        ("<annotations><track/></annotations>", "is CVAT's XML for videos; export the task as 'CVAT for images 1.1'"),
        ("<annotation><folder/></annotation>", "is not CVAT's XML, it begins with <annotation>"),
        (cvat("")[:-5], "is not XML, or not whole"),
    ],
    "via": [
        (
            via({"name": "point", "cx": 1, "cy": 1}),
            "image 'labeled0.png', region 0: is a point, which has no area; draw",
        ),
        (via(**{"class": ""}), "region 0: has 0 values of 'class', not one; choose one"),
        (via(**{"class": {"box": True, "ball": True}}), "region 0: has 2 values of 'class', not one"),
        (via(quality="good"), "its regions have the attributes 'class', 'quality'; write which .* 'attribute'"),
        ({"project": {"pid": 1}, "file": {}}, "is no JSON of VIA 2, 'project' is no image; export"),
    ],
    "label_studio": [
        ([task(result(labels=("box", "ball")))], "task 4, result 'r1': has 2 labels, not one; give it one"),
        ([task(result(labels=()))], "task 4, result 'r1': has 0 labels, not one"),
        ([task(result({"x": 1, "y": 1, "width": 1}, "keypointlabels"))], "'r1': is a point, which has no area"),
        ([task(result(image_rotation=90))], "was drawn on a turned image"),
        ([task(result({"rle": [0, 0, 1, 1, 0]}, "brushlabels"))], "is not as Label Studio writes it"),
        ([task(annotations=[{"result": []}] * 2)], "task 4: has 2 annotations; keep one of them"),
        ([{"image": "labeled0.png"}], "a value without 'annotations'; export the project as JSON, not JSON-MIN"),
        ([task(image="a/labeled0.txt")], "task 4: its 'data' names 0 images; one is needed"),
        (
            [task(result(), result(RECTANGLE, "rectanglelabels"))],
            "has rectangles of 'rectanglelabels' and outlines of 'polygonlabels'; write which",
        ),
        ([task(result(), result(original_width=61))], "has results of images of different sizes"),
    ],
    "labelme": [
        (labelme(points=[[1, 1], [9, 9]]), "labeled0.json: a shape of 'box' is a polygon of 2 points"),
        (labelme(shape_type="linestrip"), r"shape 0 \('box'\): is a linestrip, which has no area .*draw"),
        (labelme(shape_type="circle"), r"shape 0 \('box'\): is a circle of 3 points, not 2; redraw"),
        (labelme() | {"imagePath": "..\\labeled1.png"}, "labels the image .*labeled1.png', not .*labeled0.png; rename"),
        (
            {"imagePath": "labeled0.png"},
            "labeled0.json: is not as LabelMe writes it .*KeyError: 'shapes'.*export it anew",
        ),
        ("{", "labeled0.json: is not as LabelMe writes it"),
        (labelme(label="crate"), "labeled0.json: has the categories 'crate'"),
    ],
    "yolo": [
        ("1 0.5 0.5 0.2 0.2", "labeled0.txt, line 1: is a box; segmentation needs outlines"),
        ("\n1 0.1 0.1 0.2 0.1 0.2", "labeled0.txt, line 2: has 5 numbers after the class, which are no pairs"),
        ("9 0.1 0.1 0.2 0.1 0.2 0.2", "has the class 9, and .*names.yaml has no such name; add it"),
        ("1 12 12 40 12 40 40", r"has a corner at \(2400, 600\), and the image has 60 x 50 pixels"),
        ("box 0.1 0.1 0.2 0.1 0.2 0.2", "labeled0.txt: is not as YOLO writes it"),
    ],
}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [pytest.param(name, *case, id=f"{name}-{i}") for name, cases in BAD.items() for i, case in enumerate(cases)],
)
def test_what_is_wrong_is_said(tree, name, content, message):
    settings = {}
    if name == "yolo":
        settings["names"] = "names.yaml"
        store(tree, "names.yaml", {"names": {1: "box"}})
        store(tree, "labels/labeled0.txt", content)
    elif name == "labelme":
        store(tree, "images/labeled0.json", content)
    else:
        settings["files"] = SET_FILES[name]
        store(tree, SET_FILES[name], content)
    with pytest.raises(InputError, match=message) as caught:
        read_first(tree, format=name, **settings)
    assert re.match(f"{tree.root}/[^:]*: ", str(caught.value))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "coco", "files": "a.json", "uncovered": "floor"}, "'uncovered': 'floor' is not one of 'classes'"),
        ({"format": "coco", "files": "a.json", "other": "floor"}, "'other': 'floor' is not one of 'classes'"),
        ({"format": "coco", "files": "a.json", "categories": {"crate": "floor"}}, "'crate': 'floor' is not one of"),
        ({"format": "coco", "files": "a.json", "categories": ["box"]}, "'categories' is .*; write {category: class}"),
        ({"format": "coco", "files": "b.json"}, "b.json: is missing; put it there, or change 'files'"),
        ({"format": "coco", "files": []}, r"'files' is \[\]; write a path below the root"),
        ({"format": "coco"}, "the key 'files' is missing"),
        ({"format": "labelme", "files": "labels"}, "'files' is 'labels'; write where the file of an image is"),
        ({"format": "label_studio", "files": "a.json", "controls": "label"}, "'controls' is 'label'; write"),
        ({"format": "yolo"}, "the key 'names' is missing"),
    ],
)
def test_settings_are_checked(tree, settings, message):
    store(tree, "a.json", Coco())
    with pytest.raises(InputError, match=message):
        describe(tree, **settings)


def test_what_no_shape_covers_has_to_be_said(tree):
    store(tree, "a.json", Coco())
    with pytest.raises(InputError, match="the key 'uncovered' is missing"):
        tree.describe(mask=None, labels={"format": "coco", "files": "a.json"})
        load_description(tree.yaml)


def test_categories_are_mapped_or_taken_together(tree):
    content = Coco() | {"categories": [{"id": 1, "name": "crate"}, {"id": 2, "name": "cup"}]}
    cup = {"category_id": 2, "segmentation": [[40, 30, 50, 30, 50, 40, 40, 40]]}
    content["annotations"].append(content["annotations"][0] | cup)
    store(tree, "a.json", content)
    mask = read_first(tree, format="coco", files="a.json", categories={"crate": "box"}, other="ignore")
    assert mask[10, 10] == 1 and mask[35, 45] == 255 and mask[0, 0] == 0


def test_an_image_without_labels_is_unlabeled_and_an_empty_one_is_covered_by_nothing(tree):
    """By the rule of each format: some list images that nobody has looked at."""
    empty = {
        "coco": (Coco() | {"annotations": []}, True),
        "cvat": (cvat(""), False),
        "via": ({"x": {"filename": "labeled0.png", "regions": []}}, False),
        "label_studio": ([task()], True),
    }
    for name, (content, labeled) in empty.items():
        store(tree, SET_FILES[name], content)
        first, second, _ = describe(tree, format=name, files=SET_FILES[name]).records("labeled")
        assert "sem_seg_missing" in second
        assert ("sem_seg_file_name" in first) == labeled
        if labeled:
            assert not read_record_mask(first).any()
    for annotations in ([], [{"result": [], "was_cancelled": True}]):
        store(tree, "a.json", [task(annotations=annotations)])
        assert "sem_seg_missing" in describe(tree, format="label_studio", files="a.json").records("labeled")[0]


def test_the_order_of_a_file_does_not_matter(tree):
    content = Coco()
    content["annotations"] *= 2
    content["images"].insert(0, {"id": 8, "file_name": "labeled1.png"})
    store(tree, "a.json", dict(reversed(content.items())))
    first, second, _ = describe(tree, format="coco", files="a.json").records("labeled")
    assert read_record_mask(first)[10, 10] == 1 and not read_record_mask(second).any()


def test_images_that_no_list_has_are_noted(tree):
    content = Coco()
    content["images"] += [{"id": 8, "file_name": "lost.png"}, {"id": 9, "file_name": "gone.png"}]
    store(tree, "a.json", content)
    (tree.root / "labeled.txt").write_text("labeled0\n")
    notes = report_dataset(describe(tree, format="coco", files="a.json"), 1).notes
    assert any(
        "a.json, image 'lost.png': is in no list, as 2 of the labeled images; list them" in note for note in notes
    )


def test_images_are_found_by_path_name_or_stem(tree):
    """Of two images of one name each gets what is labeled at its path; what belongs to another file is not taken."""
    (tree.root / "images/a").mkdir()
    Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(tree.root / "images/a/labeled0.png")
    content = Coco()
    content["images"][0]["file_name"] = "a/labeled0.png"
    content["images"] += [{"id": 8, "file_name": "D:\\photos\\labeled1.png"}, {"id": 9, "file_name": "labeled2.jpeg"}]
    store(tree, "a.json", content)
    (tree.root / "labeled.txt").write_text("a/labeled0\nlabeled0\nlabeled1\nlabeled2\n")
    found = describe(tree, format="coco", files="a.json").records("labeled")
    assert ["sem_seg_file_name" in record for record in found] == [True, False, True, True]
    assert read_record_mask(found[0])[10, 10] == 1 and not read_record_mask(found[2]).any()


def test_one_image_of_a_file_fits_two_of_a_list(tree):
    (tree.root / "images/a").mkdir()
    Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(tree.root / "images/a/labeled0.png")
    store(tree, "a.json", Coco())
    (tree.root / "labeled.txt").write_text("a/labeled0\nlabeled0\n")
    with pytest.raises(InputError, match=r"'labeled0.png': fits .*/a/labeled0.png and .*/labeled0.png; name images by"):
        describe(tree, format="coco", files="a.json").records("labeled")
