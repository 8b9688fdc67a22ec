"""Writes the small label files beside this script, by the tools' own libraries where these can write them.

Run it in a throw-away environment (`python -m venv`, Python 3.11), since none of them is needed to read the files:

    pip install datumaro==1.13.12 label-studio-sdk==2.1.2 labelformat==0.1.17 supervision==0.31.2 pycocotools==2.0.11
    pip install labelme==6.3.1
    QT_QPA_PLATFORM=offscreen python tests/data/labels/make_files.py

Labeled are two scenes, with the classes `box` and `ball`, whose outlines run along the edges of pixels: what they
cover is known without drawing them. A third image has no label. `masks` and `boxes.json` say what is right: class ids
(0 where there is neither), the smaller object on top; and class and box of each object.

Not written by its tool: VIA's files (an HTML page writes them: by its published format), Label Studio's result around
the brush's run lengths, and Roboflow's folders (its site makes them: COCO by datumaro, YOLO by labelformat, put into
its layout, which datumaro recognizes).
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import datumaro as dm
import numpy as np
import supervision as sv
from datumaro.components.annotation import Bbox, Mask, Polygon
from label_studio_sdk.converter.brush import mask2rle
from label_studio_sdk.converter.imports.coco import convert_coco_to_ls
from labelformat.formats.coco import COCOInstanceSegmentationInput
from labelformat.formats.yolov8 import YOLOv8InstanceSegmentationOutput
from labelme._label_file import LabelFile
from labelme.utils import img_arr_to_b64
from PIL import Image
from pycocotools import mask as coco_mask

FILES = Path(__file__).parent / "files"
HEIGHT, WIDTH = 48, 64
CLASSES = ["box", "ball"]  # class ids 1 and 2


@dataclass
class Object:
    name: str
    points: list[tuple[int, int]]

    @property
    def pixels(self):
        """By the rows: a pixel's center is inside if the outline's upright edges left of it are odd in number."""
        mask = np.zeros((HEIGHT, WIDTH), bool)
        for (x0, y0), (x1, y1) in zip(self.points, self.points[1:] + self.points[:1], strict=True):
            if x0 == x1:
                mask[min(y0, y1) : max(y0, y1), x0:] ^= True
        return mask

    @property
    def flat(self):
        return [float(value) for point in self.points for value in point]

    @property
    def box(self):
        rows, columns = np.nonzero(self.pixels)
        return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def rectangle(x0, y0, x1, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


SCENES = {
    "a": [
        Object("ball", [(20, 12), (26, 12), (26, 18), (32, 18), (32, 24), (14, 24), (14, 18), (20, 18)]),  # on the box
        Object("box", [(4, 6), (40, 6), (40, 30), (24, 30), (24, 42), (4, 42)]),
    ],
    "b": [
        Object("box", rectangle(0, 10, 20, 30)),
        Object("box", rectangle(20, 10, 34, 26)),  # touches the first one
        Object("ball", rectangle(50, 36, 64, 48)),
    ],
}


def write_images():
    rng = np.random.default_rng(0)
    answers = {}
    for name in ("a", "b", "c"):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        objects = SCENES.get(name, [])
        for thing in sorted(objects, key=lambda thing: -thing.pixels.sum()):
            mask[thing.pixels] = 1 + CLASSES.index(thing.name)
        colors = np.array([[60, 90, 60], [170, 120, 70], [200, 40, 60]])[mask]
        image = np.clip(colors + rng.normal(0, 6, colors.shape), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(FILES / "images" / f"{name}.png")
        Image.fromarray(mask).save(FILES / "masks" / f"{name}.png")
        answers[name] = [[thing.name, *thing.box] for thing in objects]
    (FILES / "boxes.json").write_text(json.dumps(answers))


def write_datumaro(name, export_format, make, **options):
    """An export of datumaro, as one file; objects as `make` annotates them."""
    items = []
    for scene, objects in SCENES.items():
        annotations = [make(thing, index) for index, thing in enumerate(objects)]
        media = dm.Image.from_file(str(FILES / "images" / f"{scene}.png"))
        items.append(dm.DatasetItem(id=scene, media=media, annotations=annotations))
    with tempfile.TemporaryDirectory() as folder:
        dm.Dataset.from_iterable(items, categories=CLASSES).export(folder, export_format, **options)
        (written,) = (path for path in Path(folder).rglob("*") if path.suffix in (".json", ".xml"))
        shutil.copy(written, FILES / name)


def polygon(thing, index):
    return Polygon(thing.flat, label=CLASSES.index(thing.name), id=index, group=index + 1)


def mask(thing, index):
    return Mask(thing.pixels, label=CLASSES.index(thing.name), id=index, group=index + 1)


def box_mask_or_polygon(thing, index):
    if len(thing.points) == 4:
        x0, y0, x1, y1 = thing.box
        return Bbox(x0, y0, x1 - x0, y1 - y0, label=CLASSES.index(thing.name), z_order=index)
    return (mask if thing.name == "ball" else polygon)(thing, index)


def crowd_of_boxes(thing, index):
    if thing is not SCENES["a"][1]:
        return polygon(thing, index)
    annotation = mask(thing, index)
    annotation.attributes = {"is_crowd": True}
    return annotation


def write_compressed_coco():
    content = json.loads((FILES / "coco_polygons.json").read_text())
    things = [thing for objects in SCENES.values() for thing in objects]
    for annotation, thing in zip(content["annotations"], things, strict=True):
        rle = coco_mask.encode(np.asfortranarray(thing.pixels, dtype=np.uint8))
        annotation["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
    (FILES / "coco_compressed.json").write_text(json.dumps(content))


def write_supervision():
    """COCO and YOLO of contours through the middle of pixels, and shapes of LabelMe."""
    annotations = {}
    for scene, objects in SCENES.items():
        masks = np.array([thing.pixels for thing in objects])
        classes = np.array([CLASSES.index(thing.name) for thing in objects])
        annotations[str(FILES / "images" / f"{scene}.png")] = sv.Detections(
            xyxy=np.array([thing.box for thing in objects], float), mask=masks, class_id=classes
        )
    data = sv.DetectionDataset(CLASSES, list(annotations), annotations)
    data.as_coco(annotations_path=str(FILES / "coco_supervision.json"), approximation_percentage=0)
    data.as_yolo(
        annotations_directory_path=str(FILES / "yolo_supervision" / "labels"),
        data_yaml_path=str(FILES / "yolo_supervision" / "data.yaml"),
        approximation_percentage=0,
    )


def write_labelme():
    for scene, objects in SCENES.items():
        shapes = []
        for index, thing in enumerate(objects):
            x0, y0, x1, y1 = thing.box
            shape = {"label": thing.name, "group_id": None, "flags": {}, "description": "", "mask": None}
            if thing.name == "ball" and scene == "a":
                crop = thing.pixels[y0:y1, x0:x1].astype(np.uint8)
                shape |= {"shape_type": "mask", "points": [[x0, y0], [x1 - 1, y1 - 1]], "mask": img_arr_to_b64(crop)}
            elif len(thing.points) == 4:
                shape |= {"shape_type": "rectangle", "points": [[x1, y0], [x0, y1]], "group_id": index}
            else:
                shape |= {"shape_type": "polygon", "points": thing.points}
            shapes.append(shape)
        file = FILES / "labelme" / f"{scene}.json"
        LabelFile().save(str(file), shapes, f"..\\images\\{scene}.png", HEIGHT, WIDTH)


def write_label_studio():
    coco, out = FILES / "coco_polygons.json", FILES / "label_studio_polygons.json"
    convert_coco_to_ls(str(coco), str(out), image_root_url="/data/upload/1")
    out.write_text(out.read_text().replace("/data/upload/1/", "/data/upload/1/1b2c3d4e-"))
    (out.parent / "label_studio_polygons.label_config.xml").unlink()
    tasks = []
    for number, (scene, objects) in enumerate(SCENES.items(), start=1):
        results = [
            {
                "id": f"{scene}{index}",
                "type": "brushlabels",
                "value": {
                    "format": "rle",
                    "rle": mask2rle(thing.pixels.astype(np.uint8) * 255),
                    "brushlabels": [thing.name],
                },
                "origin": "manual",
                "to_name": "image",
                "from_name": "tag",
                "image_rotation": 0,
                "original_width": WIDTH,
                "original_height": HEIGHT,
            }
            for index, thing in enumerate(objects)
        ]
        choice = {
            "id": "c",
            "type": "choices",
            "value": {"choices": ["done"]},
            "to_name": "image",
            "from_name": "state",
        }
        annotation = {"id": number, "was_cancelled": False, "ground_truth": False, "result": [*results, choice]}
        task = {"id": number, "data": {"image": f"/data/local-files/?d=scenes%2F{scene}.png"}}
        tasks.append(task | {"annotations": [annotation], "predictions": []})
    tasks.append(
        {"id": 3, "data": {"image": "/data/local-files/?d=scenes%2Fc.png"}, "annotations": [], "predictions": []}
    )
    (FILES / "label_studio_brush.json").write_text(json.dumps(tasks))


def write_labelformat_yolo(folder):
    YOLOv8InstanceSegmentationOutput(folder / "data.yaml", "train").save(
        COCOInstanceSegmentationInput(FILES / "coco_polygons.json")
    )


def write_via():
    metadata = {}
    for scene in ("a", "b", "c"):
        size = (FILES / "images" / f"{scene}.png").stat().st_size
        regions = []
        for thing in SCENES.get(scene, []):
            x0, y0, x1, y1 = thing.box
            outline = {"name": "rect", "x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
            if len(thing.points) > 4:
                xs, ys = zip(*thing.points, strict=True)
                outline = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
            regions.append({"shape_attributes": outline, "region_attributes": {"type": thing.name}})
        image = {"filename": f"{scene}.png", "size": size, "regions": regions, "file_attributes": {}}
        metadata[f"{scene}.png{size}"] = image
    (FILES / "via_annotations.json").write_text(json.dumps(metadata))
    options = {name: "" for name in CLASSES}
    project = {
        "_via_settings": {"ui": {}, "core": {"buffer_size": 18, "filepath": {}, "default_filepath": ""}},
        "_via_img_metadata": metadata,
        "_via_attributes": {"region": {"type": {"type": "dropdown", "options": options}}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(metadata),
    }
    (FILES / "via_project.json").write_text(json.dumps(project))


def write_roboflow():
    """Its layouts: images and _annotations.coco.json in a folder for each part; train/images and train/labels."""
    content = json.loads((FILES / "coco_polygons.json").read_text())
    for image in content["images"]:
        image["extra"] = {"name": image["file_name"]}
        image["file_name"] = f"{Path(image['file_name']).stem}_png.rf.0123456789abcdef.png"
    for category in content["categories"]:
        category["supercategory"] = "things"
    content["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
    target = FILES / "roboflow_coco" / "train"
    target.mkdir(parents=True)
    (target / "_annotations.coco.json").write_text(json.dumps(content))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(FILES / "roboflow_coco", Path(folder) / "coco")
        assert "roboflow_coco" in dm.Dataset.detect(str(Path(folder) / "coco")), "not recognized as Roboflow's"
    target = FILES / "roboflow_yolo"
    write_labelformat_yolo(target / "train")
    (target / "train" / "data.yaml").unlink()
    for file in (target / "train" / "labels").iterdir():  # its classes begin at 0, those of the COCO file at 1
        lines = [line.split(" ", 1) for line in file.read_text().splitlines()]
        file.write_text("".join(f"{int(number) - 1} {corners}\n" for number, corners in lines))
    (target / "data.yaml").write_text(f"train: ../train/images\nval: ../valid/images\nnc: 2\nnames: {CLASSES}\n")


def main():
    shutil.rmtree(FILES, ignore_errors=True)
    for folder in ("images", "masks", "labelme"):
        (FILES / folder).mkdir(parents=True)
    write_images()
    write_datumaro("coco_polygons.json", "coco_instances", polygon)
    write_datumaro("coco_uncompressed.json", "coco_instances", mask, segmentation_mode="mask")
    write_datumaro("coco_crowd.json", "coco_instances", crowd_of_boxes)
    write_datumaro("cvat.xml", "cvat", box_mask_or_polygon)
    write_compressed_coco()
    write_supervision()
    write_labelme()
    write_label_studio()
    write_labelformat_yolo(FILES / "yolo")
    write_via()
    write_roboflow()


if __name__ == "__main__":
    main()
