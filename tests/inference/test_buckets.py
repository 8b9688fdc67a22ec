"""Images from a bucket, and results into one: by a real client, from and to a server on this machine."""

import json

import pytest
from PIL import Image
from test_writers import METADATA, save, segment

from wpl_d2.cli import main as wpl
from wpl_d2.inference.predictor import Predictor, predict
from wpl_d2.inference.runtime_model import RuntimeModel
from wpl_d2.inference.sources import open_source
from wpl_d2.inference.writers import PredictionWriter
from wpl_d2.utils.buckets import Bucket
from wpl_d2.utils.errors import InputError


def upload(folder, url):
    Bucket(url).put(folder, [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()])


def download(url, folder):
    bucket = Bucket(url)
    bucket.fetch(bucket.files(), folder)
    return folder


def contents(folder):
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "predicted.json"
    }


def run(given, output, mask_format="coco", batch_size=2, facts=None):
    model = RuntimeModel(METADATA, segment, None)
    source = open_source(str(given), output)
    with PredictionWriter(output, METADATA, False, source, mask_format) as writer:
        predict(source, Predictor(model, "cpu", maps=["confidence"]), writer, batch_size, facts=facts)
    return writer, source.ignored()


@pytest.fixture
def folder(tmp_path):
    """Images of two sizes, one with alpha, one broken, and a text."""
    for number in range(7):
        save(tmp_path / "in" / f"{number % 2}/{number}.png", 255 * (number % 3 == 0), (6, 5 + number // 4))
    Image.new("RGBA", (6, 5), (0, 0, 0, 9)).save(tmp_path / "in/glass.png")
    (tmp_path / "in/0/broken.png").write_bytes(b"no image")
    (tmp_path / "in/notes.txt").write_text("x")
    return tmp_path / "in"


def test_results_of_a_bucket_are_those_of_a_folder(bucket, folder, tmp_path):
    upload(folder, f"{bucket}/all/in")
    here, ignored = run(folder, tmp_path / "out")
    there, ignored_there = run(f"{bucket}/all/in", f"{bucket}/all/out")
    assert (
        ignored
        == ignored_there
        == ["1 files of other kinds (.txt 1)", "the alpha channel of 1 images, such as glass.png"]
    )
    assert here.count == there.count == 8
    (skipped,) = there.skipped
    assert skipped.file.as_posix() == "0/broken.png" and f"{bucket}/all/in/0/broken.png: " in skipped.skipped
    found = contents(download(f"{bucket}/all/out", tmp_path / "downloaded"))
    assert found == contents(tmp_path / "out") and len(found) == 2 * 8 + 1
    index = json.loads((tmp_path / "downloaded/predicted.json").read_text())
    assert index["folder"] == f"{bucket}/all/in" and index["images"]["0/0"] == "0/0.png"


def test_a_list_in_a_bucket_and_results_that_are_there(bucket, folder, tmp_path):
    upload(folder, f"{bucket}/list/in")
    names = [f"{bucket}/list/in/1/{number}.png" for number in (3, 1)]
    (tmp_path / "some.txt").write_text("\n".join([*names, f"{bucket}/list/in/1/gone.png"]))
    for _ in range(2):  # the second time over its own results
        writer, _ = run(tmp_path / "some.txt", f"{bucket}/list/out")
        assert writer.count == 2 and [outcome.file.name for outcome in writer.skipped] == ["gone.png"]
    images = json.loads(Bucket(f"{bucket}/list/out").read("masks.json"))["images"]
    assert [image["file_name"] for image in images] == ["1.png", "3.png"]
    # A folder of results within that of the images is not read.
    run(f"{bucket}/list", f"{bucket}/list")
    with pytest.raises(InputError, match="names images of several places"):
        (tmp_path / "two.txt").write_text(f"{names[0]}\na.png")
        open_source(str(tmp_path / "two.txt"))


def test_what_others_have_in_a_bucket_is_not_written_over(bucket, folder, tmp_path):
    upload(folder, f"{bucket}/set/masks")
    with pytest.raises(InputError, match=r"set/masks: is not an earlier result"):
        run(folder, f"{bucket}/set", "index_png")
    with pytest.raises(InputError, match=r"s3://nowhere/in: .*check the address"):
        open_source("s3://nowhere/in")
    with pytest.raises(InputError, match=r"nothing://there/in: cannot be opened"):
        open_source("nothing://there/in")
    with pytest.raises(InputError, match=r"/empty: no images there"):
        open_source(f"{bucket}/empty")
    with pytest.raises(InputError, match=r"/set/masks/1/1\.png: is a file; give its folder"):
        open_source(f"{bucket}/set/masks/1/1.png")


def test_wpl_predict_on_a_bucket(bucket, images, checkpoint, tmp_path, capsys):
    upload(images, f"{bucket}/cli/in")
    for given, output in ((images, tmp_path / "out"), (f"{bucket}/cli/in", f"{bucket}/cli/out")):
        words = [
            "predict",
            "--weights",
            checkpoint,
            "--input",
            str(given),
            "--output",
            str(output),
            "--batch-size",
            "3",
        ]
        assert wpl(words) == 0
        assert "10 images predicted, 0 skipped" in capsys.readouterr().out
    assert contents(download(f"{bucket}/cli/out", tmp_path / "downloaded")) == contents(tmp_path / "out")
