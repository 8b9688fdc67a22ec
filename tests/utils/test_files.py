import errno
import os
import subprocess

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from helpers import files_up_to, write_detection_cache
from PIL import Image

from wpl_d2.data import component_boxes as boxes_module
from wpl_d2.engine.writers import MetricsWriter
from wpl_d2.utils.errors import clear_errors
from wpl_d2.utils.files import (
    DeferredErrorFile,
    LineFile,
    UnwritableError,
    clear_write_errors,
    format_bytes,
    free_space,
    replace_file,
    save_png,
    unused_path,
    write_text,
)

NOISE = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
WRITERS = {
    "text": lambda path: write_text(path, "x" * 100_000),
    "picture": lambda path: save_png(Image.fromarray(NOISE), path),
    "arrays": lambda path: write_detection_cache(
        path, ["image"], np.random.rand(9000, 4), np.random.rand(9000), np.zeros(9000, np.int64)
    ),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path, write):
    path = tmp_path / "file"
    path.write_text("before")
    with (
        files_up_to(30_000),
        pytest.raises(UnwritableError, match=r"^\S*file: cannot be written \(File too large\); th"),
    ):
        write(path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "before")]
    write(path)
    assert path.stat().st_size > 30_000


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_disk_that_is_really_full(small_disk, write):
    (small_disk / "file").write_text("before")
    with pytest.raises(UnwritableError, match=r"file: cannot be written \(No space left on device\); make room there"):
        write(small_disk / "file")
    assert [(p.name, p.read_text()) for p in small_disk.iterdir()] == [("file", "before")]
    said = r"\(No space left on device; needed 97.7 KiB, free 6\d.0 KiB\)"
    with pytest.raises(UnwritableError, match=said):
        replace_file(small_disk / "new", lambda file: file.write_bytes(bytes(100_000)), 100_000)


def test_a_read_only_disk(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UnwritableError, match=r"file: cannot be written \(Read-only file system\); make its disk writ"):
        write_text(small_disk / "file", "")
    with pytest.raises(UnwritableError, match="Read-only"):
        write_text(small_disk / "folder" / "file", "")


def test_folders_that_are_gone_or_none(tmp_path):
    with pytest.raises(
        UnwritableError, match=r"a: cannot be written \(No such file or directory\); its folder is gone"
    ):
        save_png(Image.fromarray(NOISE), tmp_path / "gone" / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableError, match="a file is in the place of a folder"):
        write_text(tmp_path / "file" / "a", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnwritableError, match="a folder is in its place"):
        write_text(tmp_path / "folder", "")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.EDQUOT, "make room there"),
        (errno.EACCES, "allow this user to write there"),
        (errno.EPERM, "allow this user to write there"),
        (errno.EIO, "see to its disk"),
        (errno.ESTALE, "see to its disk"),
    ],
)
def test_each_refusal_has_its_mend(tmp_path, number, mend):
    said = rf"^{tmp_path}: cannot be written \({os.strerror(number)}\); {mend}"
    with pytest.raises(UnwritableError, match=said), clear_write_errors(tmp_path):
        raise OSError(number, os.strerror(number))


def test_errors_that_are_not_the_disks_stay_as_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError):
        replace_file(tmp_path / "file", lambda _: 1 / 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [3000, 3900, 4000, 4100, 5000])
def test_torch_saves_to_the_end_of_a_disk_and_says_so(tmp_path, size):
    def save():
        with (tmp_path / "file").open("wb") as file:
            saving = DeferredErrorFile(file)
            torch.save({"tensor": torch.ones(1000)}, saving)
            saving.finish()

    with files_up_to(size), pytest.raises(OSError, match="File too large"):
        save()
    save()
    assert torch.load(tmp_path / "file")["tensor"].sum() == 1000


def test_lines_come_whole_or_not_at_all(tmp_path):
    path = tmp_path / "lines"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')  # as a killed process leaves it
    file = LineFile(path)
    file.write('{"a": 3}\n')
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'
    file.flush()
    with files_up_to(30), pytest.raises(UnwritableError, match="lines: cannot be written"):
        file.write('{"a": 4}\n')
        file.flush()
    file.write('{"a": 5}\n')
    file.flush()
    file.close()
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n{"a": 3}\n{"a": 5}\n'


@pytest.mark.parametrize("there", ["", "no line", "one\n", "one\ntwo\n", "one\n\n"])
def test_what_is_no_line_is_taken_away(tmp_path, there):
    (tmp_path / "lines").write_text(there)
    LineFile(tmp_path / "lines").close()
    assert (tmp_path / "lines").read_text() == there[: there.rfind("\n") + 1]


def test_metrics_on_a_full_disk(small_disk):
    (small_disk / "fill").write_bytes(bytes(60 * 1024))
    with EventStorage() as storage:
        writer = MetricsWriter(small_disk / "metrics.json")
        storage.put_scalar("loss", 1.0)
        writer.write()
        storage.step()
        storage.put_scalars(**{f"loss_{i}": 1.0 for i in range(300)})
        with pytest.raises(UnwritableError, match=r"metrics\.json: cannot be written \(No space left on device\)"):
            writer.write()
        writer.close()
    assert (small_disk / "metrics.json").read_text() == '{"iteration": 0, "loss": 1.0}\n'


def test_boxes_are_computed_where_the_cache_is_full(tree, small_disk, monkeypatch, caplog):
    (small_disk / "fill").write_bytes(bytes(64 * 1024))
    monkeypatch.setenv("WPL_D2_CACHE", str(small_disk))
    mask = np.zeros((50, 60), np.uint8)
    mask[:20, :20] = 1
    tree.write_mask("labeled0", mask)
    records = [{"file_name": str(tree.image("labeled0")), "sem_seg_file_name": str(tree.mask("labeled0"))}]
    (record,) = boxes_module.attach_component_boxes(records, (1,), 90)
    assert record["boxes"].tolist() == [[0, 0, 20, 20]]
    assert "set WPL_D2_CACHE to another folder" in caplog.text
    assert [path.name for path in small_disk.iterdir()] == ["fill"]


def test_a_tool_says_of_a_full_disk_what_other_code_met(capsys):
    with pytest.raises(SystemExit) as status, clear_errors(), open("/dev/full", "w") as file:
        file.write("x")
        file.flush()
    assert status.value.code == 2
    assert capsys.readouterr().err.startswith("error: ") and "Traceback" not in capsys.readouterr().err
    with pytest.raises(FileNotFoundError), clear_errors():
        os.stat("/not/there")


def test_names_sizes_and_room(tmp_path):
    path = tmp_path / "run"
    assert unused_path(path) == path
    path.mkdir()
    (tmp_path / "run_2").symlink_to("nowhere")
    assert unused_path(path) == tmp_path / "run_3"
    assert [format_bytes(size) for size in (0, 1023, 1024, 1536 * 2**20, 2**50)] == [
        *("0 bytes", "1023 bytes", "1.0 KiB", "1.5 GiB", "1024.0 TiB")
    ]
    assert free_space(tmp_path / "not" / "yet" / "there") > 0
