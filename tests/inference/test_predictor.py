import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from PIL import Image
from pycocotools.coco import COCO

from wpl_d2.data import UnreadableImageError, read_image, read_mask
from wpl_d2.export import open_model
from wpl_d2.inference.predictor import Predictor, predict
from wpl_d2.inference.sliding_window import SlidingWindow
from wpl_d2.inference.sources import open_source
from wpl_d2.inference.writers import PredictionWriter
from wpl_d2.utils.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def teacher(checkpoint):
    return open_model(checkpoint)


def run(given, output, model, batch_size=4, opts=(), min_score=0.0, maps=()):
    source = open_source(str(given), output=output)
    predictor = Predictor(model, "cpu", min_score, opts, maps)
    with PredictionWriter(output, model.metadata, model.detect is not None, source) as results:
        return predict(source, predictor, results, batch_size)


def expected_logits(model, file):
    image = torch.from_numpy(read_image(file).copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        return model.segment(image)[0]


def expected_labels(model, file):
    return expected_logits(model, file).argmax(dim=0).numpy()


@pytest.fixture
def folder(tmp_path, images):
    """Two folders with images of equal names, three sizes, a broken file and a text."""
    root = tmp_path / "in"
    for sub, name in (("a", "val0"), ("b", "val0"), ("b", "val1"), ("b", "labeled0")):
        (root / sub).mkdir(parents=True, exist_ok=True)
        shutil.copy(images / f"{name}.png", root / sub)
    Image.open(images / "val1.png").resize((72, 41)).save(root / "b" / "val1.png")
    Image.open(images / "labeled1.png").convert("RGB").save(root / "b" / "val0.jpg")
    (root / "b" / "broken.png").write_bytes((images / "val0.png").read_bytes()[:300])
    (root / "notes.txt").write_text("no image")
    return root


def test_a_folder(folder, tmp_path, teacher):
    skipped = run(folder, tmp_path / "out", teacher, batch_size=2)
    assert [frame.file.as_posix() for frame in skipped] == ["b/broken.png"]
    masks = {
        "a/val0.png": "a/val0.png",
        "b/labeled0.png": "b/labeled0.png",
        # Of two files that differ in the suffix alone each has its own.
        "b/val0.jpg.png": "b/val0.jpg",
        "b/val0.png.png": "b/val0.png",
        "b/val1.png": "b/val1.png",
    }
    written = {path.relative_to(tmp_path / "out/masks").as_posix() for path in (tmp_path / "out/masks").rglob("*.png")}
    assert written == masks.keys()
    for name, file in masks.items():
        logits = expected_logits(teacher, folder / file)
        expected = logits.argmax(dim=0).numpy()
        assert len(np.unique(expected)) > 1
        # Images of a batch are not rounded as an image alone is, which may decide where two classes tie.
        first, second = logits.topk(2, dim=0).values
        clear = (first - second > 1e-5).numpy()
        np.testing.assert_array_equal(read_mask(tmp_path / "out/masks" / name)[clear], expected[clear])
        assert clear.mean() > 0.99
        drawn = read_image(tmp_path / "out/overlays" / name)
        assert drawn.shape == read_image(folder / file).shape
        assert (drawn != read_image(folder / file)).any()


def test_boxes_are_coco(folder, tmp_path, teacher):
    pixels = torch.from_numpy(read_image(folder / "b/val1.png").copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        (found,) = teacher.detect(pixels)
    median = found.scores.median().item()
    run(folder / "b", tmp_path / "out", teacher, min_score=median)
    coco = COCO(tmp_path / "out/boxes.json")
    assert {category["name"]: category["id"] for category in coco.dataset["categories"]} == {"box": 1, "ball": 2}
    (image,) = (entry for entry in coco.dataset["images"] if entry["file_name"] == "val1.png")
    assert (image["height"], image["width"]) == (41, 72)
    kept = found.scores >= median
    assert 0 < kept.sum() < len(kept)
    given = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
    corners = [[x, y, x + width, y + height] for x, y, width, height in (entry["bbox"] for entry in given)]
    np.testing.assert_allclose(corners, found.boxes[kept], atol=1e-3)
    assert [entry["category_id"] for entry in given] == found.classes[kept].tolist()
    np.testing.assert_allclose([entry["score"] for entry in given], found.scores[kept], atol=1e-5)


def test_confidence_and_probabilities_are_kept(folder, tmp_path, teacher):
    for maps in (("confidence",), ("probabilities", "confidence")):
        out = tmp_path / str(len(maps))
        for _ in range(2):  # the second time over the first one's files
            assert len(run(folder, out, teacher, batch_size=2, maps=maps)) == 1
        for file in (out / "masks").rglob("*.png"):
            name = file.relative_to(out / "masks")
            image = json.loads((out / "predicted.json").read_text())["images"][name.with_suffix("").as_posix()]
            expected = expected_logits(teacher, folder / image).softmax(0).numpy()
            confidence = read_mask(out / "confidence" / name)
            np.testing.assert_allclose(confidence / 255, expected.max(0), atol=0.5 / 255 + 1e-4)
            if "probabilities" in maps:
                kept = np.load(out / "probabilities" / name.with_suffix(".npy"), mmap_mode="r")
                assert kept.dtype == np.float16 and kept.shape == expected.shape
                np.testing.assert_allclose(kept, expected, atol=1e-3)
                np.testing.assert_allclose(confidence / 255, kept.max(axis=0), atol=0.5 / 255 + 1e-3)
        assert {path.name for path in out.iterdir()} >= {*maps}
        assert (out / "probabilities").is_dir() == ("probabilities" in maps)
        assert not list(out.rglob("*.partial"))
    with pytest.raises(InputError, match="no images there"):  # results are no input
        open_source(str(out), output=out)


def test_a_detector_alone_has_no_confidence_of_pixels(teacher):
    with pytest.raises(InputError, match="--save confidence: the model only detects"):
        Predictor(dataclasses.replace(teacher, segment=None), "cpu", maps=["confidence"])


def test_the_output_may_lie_in_the_input(images, tmp_path, teacher):
    shutil.copytree(images, tmp_path / "in")
    for _ in range(2):
        assert run(tmp_path / "in", tmp_path / "in/out", teacher) == []
    assert len(list((tmp_path / "in/out/masks").rglob("*.png"))) == len(list(images.iterdir()))


def test_the_output_may_be_the_input(images, tmp_path, teacher):
    shutil.copytree(images, tmp_path / "in")
    count = len(list(images.iterdir()))
    for _ in range(2):
        assert run(tmp_path / "in", tmp_path / "in", teacher) == []
        assert len(list((tmp_path / "in/masks").rglob("*.png"))) == count
        assert len(list((tmp_path / "in/overlays").rglob("*.png"))) == count


def test_masks_of_others_are_not_written_over(images, tmp_path, teacher):
    (tmp_path / "data" / "masks").mkdir(parents=True)
    with pytest.raises(InputError, match="masks: is not an earlier result"):
        run(images, tmp_path / "data", teacher)


@pytest.mark.parametrize(
    "pattern, names",
    [("*/val*.png", {"a/val0", "b/val0", "b/val1"}), ("b/lab*", {"labeled0"}), ("b/val1.png", {"val1"})],
)
def test_patterns_are_named_below_what_they_share(folder, pattern, names):
    assert {frame.name.as_posix() for frame in open_source(str(folder / pattern))} == names


def test_nothing_to_predict(tmp_path):
    with pytest.raises(InputError, match="no images there"):
        open_source(str(tmp_path))
    (tmp_path / "odd.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"odd.mp4: cannot be read as a video"):
        open_source(str(tmp_path / "odd.mp4"))


def test_windows(folder, tmp_path, teacher):
    size = ["TEST.INFERENCE.CROP_SIZE", "(33, 40)", "TEST.INFERENCE.STRIDE", "(16, 20)"]
    run(folder / "a", tmp_path / "out", teacher, opts=["TEST.INFERENCE.MODE", "slide", *size])
    image = torch.from_numpy(read_image(folder / "a/val0.png").copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        expected = SlidingWindow(teacher.segment, (33, 40), (16, 20))(image)[0].argmax(dim=0).numpy()
    mask = read_mask(tmp_path / "out/masks/val0.png")
    assert (mask == expected).mean() > 0.999
    assert (mask != expected_labels(teacher, folder / "a/val0.png")).any()
    with pytest.raises(InputError, match=r"MODEL.DEVICE cannot change a trained model"):
        Predictor(teacher, "cpu", opts=["MODEL.DEVICE", "cuda"])
    with pytest.raises(InputError, match=r"TEST.INFERENCE.FLIP cannot be .*; give it True or False"):
        Predictor(teacher, "cpu", opts=["TEST.INFERENCE.FLIP", "yes"])


def test_the_centre_alone_is_predicted_on_request_alone(folder, teacher):
    image = read_image(folder / "a/val0.png")
    config = CfgNode.load_cfg(teacher.metadata["config"])
    config.TEST.INFERENCE.MODE, config.TEST.INFERENCE.CROP_SIZE = "crop", (20, 20)
    judged = dataclasses.replace(teacher, metadata={**teacher.metadata, "config": config.dump()})
    (whole,) = Predictor(judged, "cpu")([image])
    np.testing.assert_array_equal(whole.labels, expected_labels(teacher, folder / "a/val0.png"))
    (center,) = Predictor(judged, "cpu", opts=["TEST.INFERENCE.MODE", "crop"])([image])
    assert not center.labels[:15].any() and whole.labels[:15].any()


def write_video(file, frames):
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 12, (64, 48))
    rng = np.random.default_rng(0)  # noise: else a file is mostly its header
    for _ in range(frames):
        writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()


def test_a_cut_video_is_told(tmp_path):
    write_video(tmp_path / "whole.avi", 12)
    assert [type(frame.image) for frame in open_source(str(tmp_path / "whole.avi"))] == [np.ndarray] * 12
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) * 2 // 3])
    *frames, last = open_source(str(tmp_path / "cut.avi"))
    assert 0 < len(frames) < 11
    assert isinstance(last.image, UnreadableImageError)
    assert f"cut.avi: breaks off after {len(frames)} frames, its header names 12" in str(last.image)


@pytest.mark.parametrize(("named", "told"), [(0, False), (11, False), (13, False), (14, True)])
def test_a_header_may_be_off_by_a_frame(tmp_path, monkeypatch, named, told):
    write_video(tmp_path / "drive.avi", 12)
    source = open_source(str(tmp_path / "drive.avi"))
    monkeypatch.setattr(type(source), "__len__", lambda _: named)
    assert isinstance(list(source)[-1].image, UnreadableImageError) == told


def test_a_video(images, tmp_path, exported):
    frames = [read_image(images / f"{name}.png") for name in ("val0", "val1", "labeled0")]
    smooth = [cv2.resize(cv2.resize(frame, (6, 5)), (64, 48)) for frame in frames]
    writer = cv2.VideoWriter(str(tmp_path / "drive.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12, (64, 48))
    for frame in smooth:
        writer.write(frame[..., ::-1])
    writer.release()
    model = open_model(exported("onnx"))
    assert run(tmp_path / "drive.avi", tmp_path / "out", model, batch_size=2) == []
    masks = sorted((tmp_path / "out/masks/drive").iterdir())
    assert [mask.name for mask in masks] == ["000000.png", "000001.png", "000002.png"]
    decoded = list(open_source(str(tmp_path / "drive.avi")))
    for mask, frame, original in zip(masks, decoded, smooth, strict=True):
        # In red, green, blue, as the file was before it was compressed.
        assert np.abs(frame.image.astype(int) - original).mean() < 10
        pixels = torch.from_numpy(frame.image.copy()).permute(2, 0, 1)[None].float()
        np.testing.assert_array_equal(read_mask(mask), model.segment(pixels)[0].argmax(dim=0).numpy())
    drawn = cv2.VideoCapture(str(tmp_path / "out/overlays/drive.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and drawn.get(cv2.CAP_PROP_FPS) == 12
    assert drawn.read()[1].shape == (48, 64, 3)
    assert not (tmp_path / "out/boxes.json").exists()  # the format holds no detector


def test_the_tool_says_what_it_skipped(folder, tmp_path, checkpoint):
    command = [sys.executable, "-W", "ignore", ROOT / "tools/predict.py", "--weights", checkpoint, "--input", folder]
    command += ["--output", tmp_path / "out", "--model", "student", "--min-score", "0", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "5 images predicted, 1 skipped" in done.stdout
    assert "skipped: " in done.stderr and "broken.png" in done.stderr
    mask = read_mask(tmp_path / "out/masks/a/val0.png")
    np.testing.assert_array_equal(mask, expected_labels(open_model(checkpoint, "student"), folder / "a/val0.png"))
    assert json.loads((tmp_path / "out/boxes.json").read_text())["annotations"]
