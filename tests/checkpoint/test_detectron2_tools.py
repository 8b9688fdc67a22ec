"""Detectron2's own tools on what a training left: its predictor, its visualizer, its counts."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.utils.visualizer import Visualizer

from wpl_d2 import build_model
from wpl_d2.checkpoint import load_model
from wpl_d2.data import read_image

# What a user of Detectron2 writes, in a process that registers no data set and knows no folder of the training's.
NATURAL = """
import sys
import cv2
from wpl_d2 import get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.utils.visualizer import Visualizer

cfg = get_cfg()
cfg.merge_from_file("config.yaml")
cfg.MODEL.WEIGHTS = "model_final.pth"
predictor = DefaultPredictor(cfg)
image = cv2.imread(sys.argv[1])
outputs = predictor(image)
drawing = Visualizer(image[..., ::-1], predictor.metadata)
drawing.draw_sem_seg(outputs["sem_seg"].argmax(dim=0))
drawing.draw_instance_predictions(outputs["instances"][:2])
print(predictor.metadata.as_dict())
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def predicted(checkpoint, images):
    model, metadata = load_model(checkpoint)
    cfg = metadata["config"]
    cfg.MODEL.WEIGHTS = checkpoint
    image = read_image(images / "val0.png")
    return image, DefaultPredictor(cfg)(image[..., ::-1]), model, cfg


def test_default_predictor_uses_the_teacher(predicted):
    image, outputs, model, _ = predicted
    with torch.no_grad():
        (expected,) = model([{"image": torch.from_numpy(image.copy()).permute(2, 0, 1)}])
    torch.testing.assert_close(outputs["sem_seg"], expected["sem_seg"])
    torch.testing.assert_close(outputs["instances"].pred_boxes.tensor, expected["instances"].pred_boxes.tensor)


def test_visualizer_draws_classes_and_boxes(predicted):
    image, outputs, _, cfg = predicted
    metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    labels, boxes = outputs["sem_seg"].argmax(dim=0), outputs["instances"][:2]
    assert len(boxes) == 2 and len(labels.unique()) > 1
    black = np.zeros_like(image)
    drawn = Visualizer(black, metadata).draw_sem_seg(labels, alpha=1.0).get_image()
    for index in labels.unique():
        inside = drawn[labels.numpy() == index]
        assert (inside == metadata.stuff_colors[index]).all(axis=-1).any()
    drawing = Visualizer(black, metadata).draw_instance_predictions(boxes)
    assert drawing.get_image().any()
    texts = [text.get_text() for text in drawing.ax.texts]
    assert len(texts) == 2 and all(re.fullmatch(r"(box|ball) \d+%", text) for text in texts)


def test_counts_of_a_checkpoint(checkpoint, predicted):
    command = [sys.executable, "-W", "ignore", ROOT / "tools/analyze_model.py", "--weights", checkpoint]
    command += ["--size", 64, 96]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if re.match(r"\w[\w.]* +\d", line)}
    model = predicted[2]
    total = sum(parameter.numel() for parameter in model.parameters())
    assert float(rows["all"][0]) == pytest.approx(total / 1e6, abs=5e-4)
    # A 1x1 convolution from 256 channels to 3 classes at a quarter of the size, and the resize of its result.
    multiplies = 256 * 3 * (64 // 4) * (96 // 4)
    assert float(rows["sem_seg_head.predictor"][1]) == pytest.approx(multiplies / 1e9, abs=5e-4)
    assert float(rows["all"][1]) == pytest.approx(
        sum(float(rows[part][1]) for part in ("backbone", "sem_seg_head", "detector")), abs=2e-3
    )
    assert float(re.search(r"Activations: (\d+\.\d) M", done.stdout)[1]) > 0


def test_a_size_without_pixels_is_refused(checkpoint):
    command = [sys.executable, "-W", "ignore", ROOT / "tools/analyze_model.py", "--weights", checkpoint]
    done = subprocess.run([*map(str, command), "--size", "0", "5"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        "analyze_model.py: error: argument --size: '0' is not a whole number of 1 or more",
    )


def test_detectron2s_lines_do_in_a_fresh_process(checkpoint, images, predicted, tmp_path):
    shutil.copy(checkpoint, tmp_path)
    cfg = predicted[3].clone()
    known = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    cfg.DATASETS.DESCRIPTION = "the YAML is on another machine"
    (tmp_path / "config.yaml").write_text(cfg.dump())
    command = [sys.executable, "-W", "ignore", "-c", NATURAL, str(images / "val0.png")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = ast.literal_eval(done.stdout.splitlines()[-1])
    keys = ("stuff_classes", "stuff_colors", "thing_classes", "thing_colors")
    # Of the same types too: to register the data set afterwards is no contradiction.
    assert {key: said[key] for key in keys} == {key: getattr(known, key) for key in keys}


def test_a_checkpoint_of_another_data_set_names_no_classes(checkpoint, predicted):
    cfg = predicted[3].clone()
    cfg.MODEL.WEIGHTS, cfg.DATASETS.TEST = checkpoint, ("another_val",)
    build_model(cfg)
    assert MetadataCatalog.get("another_val").get("stuff_classes") is None
