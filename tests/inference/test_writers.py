"""Folders as they are: what is in them is predicted or named, and no file ends a run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from wpl_d2 import get_cfg
from wpl_d2.data import read_mask
from wpl_d2.inference.predictor import Predictor, predict
from wpl_d2.inference.runtime_model import RuntimeModel
from wpl_d2.inference.sources import open_source
from wpl_d2.inference.writers import PredictionWriter
from wpl_d2.structures import Detections
from wpl_d2.utils.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
METADATA = {
    "config": get_cfg().dump(),
    "classes": ["dark", "bright"],
    "colors": [[0, 0, 90], [250, 250, 0]],
    "objects": [1],
}
SCORES = torch.tensor([0.9, 0.8, float("nan"), 0.7])


def segment(images):
    """Bright pixels are of class 1."""
    bright = images.mean(dim=1) - 127
    return torch.stack([-bright, bright], dim=1)


def detect(images):
    """A box, one narrower than a pixel, one without a score, one that is not a number."""
    height, width = images.shape[-2:]
    boxes = [[0, 0, width, height], [0.3, 0, 0.4, height], [0, 0, 1, 1], [0, 0, float("inf"), float("nan")]]
    return [Detections(torch.tensor(boxes), SCORES, torch.ones(4, dtype=torch.int64)) for _ in images]


def save(file, value, size=(6, 5)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value,) * 3).save(file)


def run(given, output, segment=segment, detect=detect, batch_size=4, mask_format="index_png"):
    """Predict; returns names of what was skipped, what was left out in words, and the results."""
    model = RuntimeModel(METADATA, segment, detect)
    source = open_source(str(given), output=output)
    with PredictionWriter(output, METADATA, detect is not None, source, mask_format) as results:
        skipped = predict(source, Predictor(model, "cpu"), results, batch_size)
    return [frame.file.as_posix() for frame in skipped], source.ignored(), results


def masks(output):
    files = (output / "masks").rglob("*.png")
    return {file.relative_to(output / "masks").as_posix(): read_mask(file).max() for file in sorted(files)}


def boxes(output):
    coco = json.loads((output / "boxes.json").read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    assert len(names) == len(coco["images"])
    return sorted(names[box["image_id"]] for box in coco["annotations"])


def test_equal_names_have_results_of_their_own(tmp_path):
    places = ["a.jpg", "a.png", "a.jpg.png", "b.PNG", "b.png", "sub.d/a.png"]
    for number, place in enumerate(places):
        save(tmp_path / "in" / place, 255 * (number % 2))
    skipped, left_out, results = run(tmp_path / "in", tmp_path / "out")
    assert (skipped, left_out, results.count) == ([], [], 6)
    expected = {"a.jpg.png": 0, "a.png.png": 1, "a.jpg.png.png": 0, "b.PNG.png": 1, "b.png-2.png": 0, "sub.d/a.png": 1}
    assert masks(tmp_path / "out") == expected
    record = json.loads((tmp_path / "out/predicted.json").read_text())
    assert record["images"]["b.png-2"] == "b.png" and record["folder"] == str(tmp_path / "in")
    assert len({*boxes(tmp_path / "out")}) == 6


def test_images_of_several_folders_by_one_pattern(tmp_path):
    for folder, value in (("x", 0), ("y", 255), ("z", 255)):
        save(tmp_path / f"in/{folder}/left.png", value)
    (tmp_path / "in/left.png").mkdir()
    run(tmp_path / "in/*/left.png", tmp_path / "out")
    assert masks(tmp_path / "out") == {"x/left.png": 0, "y/left.png": 1, "z/left.png": 1}


def test_what_is_left_out_is_said(tmp_path):
    folder = tmp_path / "in"
    save(folder / "a.png", 0)
    Image.new("RGBA", (6, 5), (0, 0, 0, 9)).save(folder / "glass.png")
    Image.new("LA", (6, 5)).save(folder / "gray_glass.png")
    pages = [Image.new("L", (6, 5), value) for value in (255, 0, 0)]
    pages[0].save(folder / "scan.tif", save_all=True, append_images=pages[1:])
    palette = Image.new("P", (6, 5))
    palette.info["transparency"] = 0
    palette.save(folder / "palette.png")
    for name in ("notes.txt", "more.TXT", "clip.mp4", "raw", "photo.heic"):
        (folder / name).write_text("x")
    leftovers = ["._a.png", ".DS_Store", "Thumbs.db", "__MACOSX/a.png", ".ipynb_checkpoints/a.png", "a.png~", "~$b.png"]
    for name in leftovers:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    skipped, left_out, results = run(folder, tmp_path / "out")
    assert skipped == [] and results.count == 5
    assert left_out == [
        "5 files of other kinds (.heic 1, .mp4 1, .txt 2, without suffix 1)",
        "7 hidden or system files",
        "the alpha channel of 3 images, such as glass.png",
        "all but the first picture of 1 files, such as scan.tif (3)",
    ]
    assert masks(tmp_path / "out")["scan.png"] == 1
    # Its own results are no input of a later run.
    assert run(folder, folder)[0] == [] and run(folder, folder)[1] == left_out


def test_unreadable_files_are_named(tmp_path):
    folder = tmp_path / "in"
    save(folder / "a.png", 0)
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    save(folder / "folder.png/inside.png", 255)
    skipped, _, results = run(folder, tmp_path / "out")
    assert skipped == ["empty.png", "gone.png", "text.jpg"] and results.count == 2


def test_a_reader_that_fails_in_another_way(tmp_path, monkeypatch, capsys):
    import wpl_d2.inference.sources as sources

    for name in "abc":
        save(tmp_path / f"in/{name}.png", 0)
    read = sources.read_image

    def broken(file, **how):
        if file.name == "b.png":
            raise MemoryError("no room")
        return read(file, **how)

    monkeypatch.setattr(sources, "read_image", broken)
    skipped, _, results = run(tmp_path / "in", tmp_path / "out")
    assert skipped == ["b.png"] and results.count == 2
    assert "b.png: cannot be read (no room)" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (3, 2)])
def test_images_of_any_size(tmp_path, size):
    save(tmp_path / "in/a.png", 255, size)
    skipped, _, results = run(tmp_path / "in", tmp_path / "out")
    assert skipped == [] and results.without_overlay == []
    assert Image.open(tmp_path / "out/overlays/a.png").size == size
    assert COCO(tmp_path / "out/boxes.json").dataset["annotations"][1]["bbox"] == pytest.approx([0.3, 0, 0.1, size[1]])
    assert boxes(tmp_path / "out") == ["a.png"] * 2  # those with a score and finite edges


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory.\nmore"), AssertionError(), MemoryError()]
)
def test_an_image_that_cannot_be_predicted_takes_no_other_with_it(tmp_path, capsys, error):
    for name, value in (("a", 0), ("b", 255), ("c", 0), ("d", 0)):
        save(tmp_path / f"in/{name}.png", value)

    def picky(images):
        if images.max() > 200:
            raise error
        return segment(images)

    skipped, _, results = run(tmp_path / "in", tmp_path / "out", picky)
    assert skipped == ["b.png"] and results.count == 3
    assert masks(tmp_path / "out").keys() == {"a.png", "c.png", "d.png"}
    told = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert (
        len(told) == 1
        and f"b.png: cannot be predicted ({str(error).partition(chr(10))[0] or type(error).__name__})" in told[0]
    )


def test_a_picture_that_cannot_be_written_loses_no_mask(tmp_path, capsys):
    for name in "abc":
        save(tmp_path / f"in/{name}.png", 255)
    (tmp_path / "out/overlays/b.png").mkdir(parents=True)
    skipped, _, results = run(tmp_path / "in", tmp_path / "out")
    assert skipped == [] and [str(frame.file) for frame in results.without_overlay] == ["b.png"]
    assert len(masks(tmp_path / "out")) == 3 and len(set(boxes(tmp_path / "out"))) == 3
    assert "no overlay: b.png" in capsys.readouterr().err
    (tmp_path / "out/masks/c.png").unlink()
    (tmp_path / "out/masks/c.png").mkdir()
    skipped, _, results = run(tmp_path / "in", tmp_path / "out")
    assert skipped == ["c.png"] and results.count == 2


def write_video(file, values):
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 12, (64, 48))
    for value in values:
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()


def test_a_video_that_cannot_be_written_loses_no_mask(tmp_path, capsys, monkeypatch):
    write_video(tmp_path / "drive.avi", [0, 255, 255])
    monkeypatch.setattr(cv2.VideoWriter, "fourcc", lambda *_: 0)
    (tmp_path / "out/overlays/drive.mp4").mkdir(parents=True)
    skipped, _, results = run(tmp_path / "drive.avi", tmp_path / "out")
    assert skipped == [] and len(results.without_overlay) == 1
    assert list(masks(tmp_path / "out").values()) == [0, 1, 1]
    assert capsys.readouterr().err.count("no overlay") == 1


def test_results_of_other_images_are_not_written_over(tmp_path):
    for place in ("day1/a.jpg", "day1/b.jpg", "day2/a.jpg"):
        save(tmp_path / place, 255)
    out = tmp_path / "out"
    run(tmp_path / "day1", out)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=r"out: has the results of .*day1; give another --output to those of .*day2"):
        run(tmp_path / "day2", out)
    save(tmp_path / "day1/a.png", 0)
    with pytest.raises(InputError, match=r"out: the result a would be of a.png and of a.jpg"):
        run(tmp_path / "day1/a.png", out)
    assert before == {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    # All of the folder, in which both now have longer names, and one of it again.
    run(tmp_path / "day1", out)
    run(tmp_path / "day1/b.jpg", out)
    assert masks(out) == {"a.png": 1, "a.jpg.png": 1, "a.png.png": 0, "b.png": 1}


def test_images_one_by_one_keep_their_boxes(tmp_path):
    for place in ("in/a.png", "in/b.png", "in/c.png"):
        save(tmp_path / place, 255)
        run(tmp_path / place, tmp_path / "out")
    run(tmp_path / "in/b.png", tmp_path / "out")
    assert boxes(tmp_path / "out") == ["a.png"] * 2 + ["b.png"] * 2 + ["c.png"] * 2
    content = json.loads((tmp_path / "out/boxes.json").read_text())
    content["categories"] = [{"id": 7, "name": "other"}]
    (tmp_path / "out/boxes.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"boxes.json: has annotations of other classes"):
        run(tmp_path / "in/b.png", tmp_path / "out")
    (tmp_path / "out/boxes.json").write_text("[")
    with pytest.raises(InputError, match=r"boxes.json: is not in COCO's format"):
        run(tmp_path / "in/b.png", tmp_path / "out")
    (tmp_path / "out/predicted.json").write_text("{}")
    with pytest.raises(InputError, match=r"predicted.json: is not a record"):
        run(tmp_path / "in/b.png", tmp_path / "out")


def test_two_videos_of_one_name(tmp_path):
    for name in ("drive.avi", "tour.avi"):
        write_video(tmp_path / name, [0, 255])
        run(tmp_path / name, tmp_path / "out")
    assert len(masks(tmp_path / "out")) == 4
    assert set(boxes(tmp_path / "out")) == {f"{name}/{i:06d}" for name in ("drive", "tour") for i in range(2)}
    os.rename(tmp_path / "tour.avi", tmp_path / "drive.mkv")
    with pytest.raises(InputError, match=r"the result drive would be of drive.mkv and of drive.avi"):
        run(tmp_path / "drive.mkv", tmp_path / "out")
    save(tmp_path / "drive/000000.png", 0)
    with pytest.raises(InputError, match=r"of drive/000000.png and of drive.avi"):
        run(tmp_path / "drive*/*.png", tmp_path / "out")


KILLED = """
import sys, time, torch
sys.path.insert(0, {tests!r})
from test_writers import run, segment

def slow(images):
    if images.max() > 200:
        print("there", flush=True)
        time.sleep(60)
    time.sleep(0.3)  # long enough for the boxes to be written each time
    return segment(images)

run({given!r}, __import__("pathlib").Path({output!r}), slow, batch_size=1)
"""


@pytest.mark.slow
def test_a_killed_run_leaves_what_it_predicted(tmp_path):
    for number in range(5):
        save(tmp_path / f"in/{number}.png", 255 * (number == 3))
    script = KILLED.format(tests=str(Path(__file__).parent), given=str(tmp_path / "in"), output=str(tmp_path / "out"))
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "there\n"
    # What was predicted before is written beside the prediction that never ends.
    deadline = time.monotonic() + 60
    while "2.png" not in boxes(tmp_path / "out") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert masks(tmp_path / "out").keys() == {"0.png", "1.png", "2.png"}
    assert set(boxes(tmp_path / "out")) == {"0.png", "1.png", "2.png"}
    assert "2" in json.loads((tmp_path / "out/predicted.json").read_text())["images"]


def test_writing_boxes_takes_little_of_the_time(tmp_path, monkeypatch):
    """The file grows; written after each image, a folder's images would take time in square."""
    import wpl_d2.inference.coco_file as coco_file

    now, writes = [0.0], []

    def replace_file(file, write):
        """Writing takes a second."""
        writes.append(now[0])
        now[0] += 1

    monkeypatch.setattr(coco_file.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(coco_file, "replace_file", replace_file)
    file = coco_file.CocoFile(tmp_path / "boxes.json", [], lambda _: False)
    begin = now[0] = time.time()
    for _ in range(1000):
        now[0] += 1
        file.add(Path("a.png"), (4, 4), [])
    assert len(writes) > 10
    assert len(writes) < 0.06 * (now[0] - begin)
