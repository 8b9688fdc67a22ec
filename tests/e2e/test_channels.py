"""Images of 16 bits, of floats and of five channels, made of photos: trained on, judged, drawn, predicted, exported."""

import json

import cv2
import numpy as np
import pytest
import torch
import yaml
from helpers import SMALL, SMALL_DETECTOR
from PIL import Image

from wpl_d2.cli import main
from wpl_d2.config.presets import ROOT
from wpl_d2.data import read_mask
from wpl_d2.export import open_model
from wpl_d2.inference import Predictor, open_source

SIZE = (96, 72)
BANDS = ["nir", "red", "green", "blue", "swir"]
OPTS = [
    *map(str, (*SMALL, *SMALL_DETECTOR)),
    "MODEL.WEIGHTS",
    "",
    "SOLVER.MAX_ITER",
    "2",
    "DATALOADER.NUM_WORKERS",
    "0",
]


def write_gray16(path, photo):
    cv2.imwrite(f"{path}.png", photo.mean(axis=2).astype(np.uint16) * 12 + 300)


def write_float(path, photo):
    """As OpenCV writes what was computed: linear colors from 0 to 1."""
    raw = [cv2.IMWRITE_TIFF_COMPRESSION, 1]
    cv2.imwrite(f"{path}.tif", (photo[..., ::-1] / 255).astype(np.float32) ** 2, raw)


def write_five(path, photo):
    red, green, blue = np.moveaxis(photo.astype(np.uint16), 2, 0)
    bands = np.stack([red // 2 + 90, red, green, blue, 255 - green // 2], axis=2) * 40
    pytest.importorskip("tifffile").imwrite(f"{path}.tif", bands, photometric="minisblack", planarconfig="contig")


def write_eight(path, photo):
    Image.fromarray(photo).save(f"{path}.png")


def write_sixteen(path, photo):
    cv2.imwrite(f"{path}.png", photo[..., ::-1].astype(np.uint16) * 257)


KINDS = {
    "gray16": (write_gray16, {"channels": 1, "value_range": [300, 3360]}),
    "float": (write_float, {"value_range": [0, 1]}),
    "five": (write_five, {"channels": BANDS, "value_range": [0, 10200]}),
}


@pytest.fixture
def make_set(shared, tmp_path, monkeypatch):
    """A set of CamVid's photos in another form."""
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))

    def make(name, write, keys):
        root = tmp_path / name
        (root / "images").mkdir(parents=True)
        (root / "masks").mkdir()
        photos = sorted((shared / "camvid/images").iterdir())[::40][:7]
        for place, photo in enumerate(photos):
            mask = Image.open(shared / "camvid/masks" / f"{photo.stem}.png").resize(SIZE, Image.Resampling.NEAREST)
            mask.save(root / "masks" / f"{place}.png")
            write(root / "images" / str(place), np.asarray(Image.open(photo).resize(SIZE)))
        for list_name, ids in {"labeled": "0\n1\n2", "unlabeled": "3\n4", "val": "5\n6"}.items():
            (root / f"{list_name}.txt").write_text(ids)
        description = yaml.safe_load((ROOT / "configs/datasets/camvid.yaml").read_text())
        text = {
            **{"name": f"{tmp_path.name}_{name}", "root": ".", "image": "images", "mask": "masks"},
            **{key: description[key] for key in ("classes", "objects")},
            "lists": {name: f"{name}.txt" for name in ("labeled", "unlabeled", "val")},
            **keys,
        }
        (root / "data.yaml").write_text(yaml.safe_dump(text))
        return root

    return make


def train(root, *opts):
    assert main(["train", str(root / "data.yaml"), *OPTS, "OUTPUT_DIR", str(root / "run"), *opts]) == 0
    return [json.loads(line) for line in (root / "run/metrics.json").read_text().splitlines()]


def without_colors(picture):
    return picture.std(axis=2).max() < 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_other_images_do_all_that_colors_do(kind, make_set, tmp_path, capsys):
    root = make_set(kind, *KINDS[kind])
    channels = {"gray16": 1, "float": 3, "five": 5}[kind]
    assert main(["check", str(root / "data.yaml")]) in (0, 1)  # three photos lack some classes
    assert "value_range" not in capsys.readouterr().out
    metrics = train(root, "TEST.EVAL_PERIOD", "2", "VIS_PERIOD", "1")
    assert all(np.isfinite(line["total_loss"]) for line in metrics if "total_loss" in line)
    config = yaml.safe_load((root / "run/config.yaml").read_text())
    assert len(config["MODEL"]["PIXEL_MEAN"]) == len(config["INPUT"]["CHANNELS"]) == channels
    for name in ("preview.png", "report.html"):
        assert (root / "run" / name).is_file()
    assert not any("could not be drawn" in line for line in (root / "run/log.txt").read_text().splitlines())
    tools = ["--config-file", str(root / "data.yaml"), "--output", str(tmp_path / "drawn"), "--num", "1"]
    assert main(["visualize", *tools]) in (0, None)
    assert len(list((tmp_path / "drawn").iterdir())) == 2

    weights, images = root / "run/model_final.pth", root / "images"
    run = ["predict", "--input", str(images), "--weights"]
    assert main([*run, str(weights), "--output", str(tmp_path / "out")]) == 0
    overlays = [np.asarray(Image.open(file)) for file in sorted((tmp_path / "out/overlays").iterdir())]
    assert len(overlays) == 7 and overlays[0].shape == (*SIZE[::-1], 3)
    for name, suffix in (("torchscript", ".pt"), ("onnx", ".onnx")):
        file = root / f"model{suffix}"
        assert main(["export", "--weights", str(weights), "--format", name, "--output", str(file)]) in (0, None)
        model = open_model(file, trust_code=True)
        told = model.metadata["preprocessing"]
        assert len(told["channels"]) == len(told["value_range"]) == len(told["mean"]) == channels
        assert main([*run, str(file), "--output", str(tmp_path / name), "--trust-code"]) == 0
        for mask in (tmp_path / "out/masks").iterdir():
            same = read_mask(mask) == read_mask(tmp_path / name / "masks" / mask.name)
            assert same.mean() > 0.999
    # The file's values are scaled by the range that the model was trained with.
    predictor = Predictor(model, "cpu")
    frame = next(iter(open_source(str(images), layout=predictor.layout)))
    assert frame.image.dtype == np.float32 and 20 < frame.image.mean() < 235


@pytest.mark.slow
def test_sixteen_bits_of_eight_train_as_the_eight(make_set):
    eight = train(make_set("eight", write_eight, {}))
    sixteen = train(make_set("sixteen", write_sixteen, {"value_range": [0, 65535]}))
    losses = ("loss_sem_seg", "total_loss")
    pairs = [(a[key], b[key]) for a, b in zip(eight, sixteen, strict=True) for key in losses if key in a]
    assert pairs
    for first, second in pairs:
        assert first == pytest.approx(second, rel=2e-3)


@pytest.mark.slow
def test_a_run_that_begins_with_a_model_of_colors_says_what_becomes_of_its_stem(make_set):
    colors = make_set("eight", write_eight, {})
    train(colors)
    five = make_set("five", *KINDS["five"])
    train(five, "MODEL.WEIGHTS", str(colors / "run/model_final.pth"))
    log = (five / "run/log.txt").read_text()
    assert "is of images of 3 channels, and these have 5: the weights of its first convolution, backbone." in log
    state = torch.load(five / "run/model_final.pth", weights_only=True)["model"]
    assert state["student.backbone.body.conv1.0.weight"].shape[1] == 5
