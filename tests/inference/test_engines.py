"""Jobs in parts: a stopped one goes on where it was, and nothing is there twice."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from test_writers import METADATA, detect, save, segment

import wpl_d2.inference.engines as engines
from wpl_d2.cli import main as wpl
from wpl_d2.inference.engines import PartStore, RayEngine, part_length
from wpl_d2.inference.predictor import Predictor, predict
from wpl_d2.inference.runtime_model import RuntimeModel
from wpl_d2.inference.sources import open_source
from wpl_d2.inference.writers import PredictionWriter
from wpl_d2.utils.errors import InputError
from wpl_d2.utils.files import make_output_folder


class Stopping:
    """A `segment` that counts its images, and is interrupted before one of them."""

    def __init__(self, after=None):
        self.count, self.after = 0, after

    def __call__(self, images):
        self.count += len(images)
        if self.count == self.after:
            raise KeyboardInterrupt
        return segment(images)


def run(folder, output, stop_after=None, facts=("job",)):
    """Predict in parts of 2 images; returns how many were predicted."""
    counting = Stopping(stop_after)
    source = open_source(str(folder), output)
    with PredictionWriter(output, METADATA, True, source, "coco") as writer:
        predictor = Predictor(RuntimeModel(METADATA, counting, detect), "cpu")
        predict(source, predictor, writer, 1, facts=facts)
    return counting.count


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "IMAGES", 2)
    for number in range(7):
        save(tmp_path / f"in/{number}.png", 255 * (number % 3 == 0), (6, 5 + number))
    (tmp_path / "in/1.png").write_bytes(b"no image")
    return tmp_path / "in"


@pytest.fixture
def expected(folder, tmp_path):
    assert run(folder, tmp_path / "whole") == 6
    return contents(tmp_path / "whole")


def test_a_stopped_job_goes_on_where_it_was(folder, expected, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, stop_after=5)  # the images 0, 2, 3, 4 and 5: two parts are done
    told = capsys.readouterr().err
    assert len(list((out / "predicted.json.parts").iterdir())) == 2
    assert len(json.loads((out / "boxes.json").read_text())["images"]) == 4
    assert run(folder, out) == 3
    assert contents(out) == expected
    assert "skipped: " in told and "1.png" in capsys.readouterr().err  # of a part that was done before
    assert run(folder, out) == 6  # nothing is left of it


def test_what_has_changed_meanwhile_is_done_again(folder, expected, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, stop_after=5)
    shutil.copy(folder / "0.png", folder / "2.png")  # of the second part of two that are done
    assert run(folder, out) == 5
    shutil.copy(folder / "0.png", folder / "4.png")
    run(folder, tmp_path / "anew")
    run(folder, out)
    assert contents(out) == contents(tmp_path / "anew") != expected
    # Another job writes over what this one has done.
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, stop_after=5)
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, stop_after=1, facts=("other",))
    assert run(folder, out) == 6


def test_what_is_stored_is_whole_or_absent(tmp_path, small_disk):
    store = PartStore(small_disk / "parts")
    assert store.keep(["a"]) == set()
    store.save("a", [("text", 1.5, {"boxes": [[1, 2]]})])
    with pytest.raises(InputError, match="make room there"):
        store.save("b", ["x" * 100_000])
    assert [path.name for path in (small_disk / "parts").iterdir()] == ["a.pt"]
    assert store.keep(["a", "b"]) == {"a"} and store.load("a") == [("text", 1.5, {"boxes": [[1, 2]]})]
    store.clear()
    assert not (small_disk / "parts").exists()


def test_what_is_not_written_into_buckets_says_so():
    with pytest.raises(InputError, match=r"OUTPUT_DIR: s3:/bucket/run is in a bucket"):
        make_output_folder("OUTPUT_DIR", Path("s3://bucket/run"))


def test_parts_are_whole_batches():
    assert [part_length(size) for size in (1, 4, 48, 100)] == [64, 64, 96, 100]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["predict", "--weights", "a.pth", "--input", "a", "--output", "b", "--address", "auto"],
            "--address: is of a Ray",
        ),
        (["judge", "--config-file", "a", "--dataset", "b", "--engine", "ray", "--num-gpus", "2"], "--num-gpus: starts"),
    ],
)
def test_options_of_another_engine_are_refused(words, said, capsys):
    with pytest.raises(SystemExit):
        wpl(words)
    assert f"error: {said}" in capsys.readouterr().err


def test_without_ray_the_engine_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(InputError, match=r"ray is not installed; run `pip install 'wpl_d2\[ray\]'`"):
        RayEngine()
