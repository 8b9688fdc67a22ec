import json
import os
import pickle
import shutil
import struct
import zipfile

import pytest
import torch
from helpers import files_up_to
from safetensors.torch import save_file
from torch import nn

from wpl_d2.checkpoint import FrameworkCheckpointer, load_checkpoint, load_initial_weights, load_model
from wpl_d2.checkpoint.checkpointer import tensor_bytes
from wpl_d2.checkpoint.metadata import build_metadata
from wpl_d2.utils.errors import InputError
from wpl_d2.utils.files import UnwritableError


class Pair(nn.Module):
    """As a framework: a student and its teacher, of a few bytes."""

    def __init__(self, width=64):
        super().__init__()
        self.student, self.teacher = nn.Linear(width, 3), nn.Linear(width, 3)


class Loop:
    """As a trainer: it knows its step."""

    def __init__(self, iteration=0):
        self.iteration = iteration

    def state_dict(self):
        return {"iteration": self.iteration}

    def load_state_dict(self, state):
        self.iteration = state["iteration"]


@pytest.fixture
def cfg(tree, tmp_path):
    return tree.cfg("OUTPUT_DIR", str(tmp_path / "out"))


@pytest.fixture
def out(cfg, tmp_path):
    """The folder of a run that saved after steps 1, 3 and 5, the last one."""
    loop = Loop()
    checkpointer = FrameworkCheckpointer(Pair(), cfg, trainer=loop)
    for name, loop.iteration in (("model_0000001", 1), ("model_0000003", 3), ("model_final", 5)):
        checkpointer.save(name, iteration=loop.iteration)
    return tmp_path / "out"


def resumed(cfg, model=None):
    """The step that a run goes on from; -1 if it begins anew."""
    loop = Loop(-1)
    found = FrameworkCheckpointer(model or Pair(), cfg, trainer=loop).resume()
    assert found == (loop.iteration >= 0)
    return loop.iteration


def flip(path, record):
    """Change one bit of a record's content in a PyTorch file."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(record))
        offset, size = archive.getinfo(name).header_offset, archive.getinfo(name).file_size
    content = bytearray(path.read_bytes())
    lengths = struct.unpack("<HH", content[offset + 26 : offset + 30])
    content[offset + 30 + sum(lengths) + size // 2] ^= 4
    path.write_bytes(content)


def deflate(path):
    packed = path.with_name("packed")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    packed.replace(path)


def change(path, **entries):
    torch.save({**torch.load(path), **entries}, path)


def with_code(path):
    torch.save({"model": {}, "run": os.system}, path)


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "text": lambda path: path.write_text("model"),
    "bit of a tensor": lambda path: flip(path, "data/0"),
    "bit of the structure": lambda path: flip(path, "data.pkl"),
    "packed": deflate,
    "code": with_code,
    "other pickle": lambda path: path.write_bytes(pickle.dumps({"model": 1})),
    "weights alone": lambda path: torch.save(Pair().state_dict(), path),
    "no training": lambda path: torch.save({k: v for k, v in torch.load(path).items() if k != "trainer"}, path),
    "another model": lambda path: change(path, model=Pair(65).state_dict()),
    "more of a model": lambda path: change(path, model={**Pair().state_dict(), "bank": torch.ones(2)}),
    "no tensors": lambda path: change(path, model=dict.fromkeys(Pair().state_dict(), 1)),
    "no model": lambda path: change(path, model=["student"]),
    "numbers for names": lambda path: change(path, model={0: torch.ones(2)}),
    "other classes": lambda path: change(path, classes=["ground", "ball", "box"]),
    "one class less": lambda path: change(path, classes=["ground", "box"], colors=[[0, 0, 0]] * 2, objects=[1]),
    "classes that are none": lambda path: change(path, classes=3),
    "colors that are none": lambda path: change(path, colors=[[0, 0]] * 3),
    "objects out of range": lambda path: change(path, objects=[7]),
    "training that is none": lambda path: change(path, trainer=["iteration"]),
    "training of another kind": lambda path: change(path, trainer={}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("last", [True, False], ids=["named", "not_named"])
def test_a_checkpoint_that_cannot_be_taken_gives_way_to_the_one_before(cfg, out, caplog, damage, last):
    damage(out / "model_final.pth")
    if not last:
        (out / "last_checkpoint").unlink()
    assert resumed(cfg) == 3
    assert "model_final.pth: " in caplog.text and "model_0000003.pth is taken instead" in caplog.text


def test_one_in_between_is_passed_over_and_all_of_them_are_an_error(cfg, out, caplog):
    flip(out / "model_final.pth", "data/1")
    with_code(out / "model_0000003.pth")
    assert resumed(cfg) == 1
    assert "model_0000003.pth: holds more than tensors" in caplog.text
    DAMAGES["another model"](out / "model_0000001.pth")
    with pytest.raises(InputError, match=r"^\S*model_final\.pth: cannot be read .* no other one .*remove --resume"):
        resumed(cfg)


TAGS = {
    "empty": "",
    "gone": "model_0000007.pth",
    "garbage": "\x00\x01garbage\n" * 50,
    "long": "m" * 5000,
    "of another folder": "../out/model_0000001.pth",
    "a folder's": ".",
}


@pytest.mark.parametrize(
    ("key", "text"),
    [("classes", '"ground"'), ("classes", "[]"), ("colors", "[[1, 2]]"), ("objects", "[9]"), ("preprocessing", "{}")],
)
def test_an_export_that_says_nonsense_of_itself_is_refused(cfg, out, key, text):
    metadata = {name: json.dumps(value) for name, value in build_metadata(cfg).items()}
    save_file(Pair().student.state_dict(), out / "model.safetensors", {**metadata, key: text})
    with pytest.raises(InputError, match=rf"model\.safetensors: its metadata '{key}' is invalid"):
        load_model(str(out / "model.safetensors"))


@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
def test_a_wrong_last_checkpoint_leads_to_the_newest_one(cfg, out, caplog, tag):
    (out / "last_checkpoint").write_text(tag)
    assert resumed(cfg) == 5
    assert "last_checkpoint: names no checkpoint that is there" in caplog.text


def test_a_last_checkpoint_that_is_no_text_or_no_file(cfg, out):
    (out / "last_checkpoint").write_bytes(b"\xff\xfe\x00")
    assert resumed(cfg) == 5
    (out / "last_checkpoint").unlink()
    (out / "last_checkpoint").mkdir()
    assert resumed(cfg) == 5
    FrameworkCheckpointer(Pair(), cfg, trainer=Loop(6)).save("model_0000006", iteration=6)
    assert (out / "last_checkpoint").read_text() == "model_0000006.pth"
    assert resumed(cfg) == 6


def test_the_newest_is_found_by_its_step_and_the_best_one_is_no_candidate(cfg, out):
    (out / "last_checkpoint").unlink()
    later = FrameworkCheckpointer(Pair(), cfg, trainer=Loop(8))
    later.save("model_best", resumable=False, iteration=9)
    assert resumed(cfg) == 5
    later.save("model_0000008", iteration=8)
    (out / "last_checkpoint").unlink()
    assert resumed(cfg) == 8
    for path in out.glob("model_*.pth"):
        if path.name != "model_best.pth":
            path.unlink()
    assert resumed(cfg) == -1


def test_a_config_in_a_checkpoint_is_data(cfg, out):
    path = out / "model_final.pth"
    bomb = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}}}\n" for i in range(1, 40))
    ran = out / "ran"
    for text in (f'OUTPUT_DIR: !!python/object/apply:os.system ["touch {ran}"]', bomb, "- a", "[" * 5000, "a: &a [*a]"):
        change(path, config=text)
        with pytest.raises(InputError, match=r"model_final\.pth: its config cannot be read"):
            load_model(str(path))
    assert not ran.exists()
    change(path, config="SOLVER: {MAX_ITER: many}")
    with pytest.raises(InputError, match=r"model_final\.pth: its config: SOLVER\.MAX_ITER cannot be"):
        load_model(str(path))
    change(path, config=7)
    with pytest.raises(InputError, match=r"model_final\.pth: its metadata 'config' is invalid"):
        load_model(str(path))


def test_a_checkpoint_that_the_disk_refuses_leaves_those_before(cfg, out):
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    checkpointer = FrameworkCheckpointer(Pair(), cfg, trainer=Loop(7))
    with files_up_to(2000), pytest.raises(UnwritableError, match=r"model_final\.pth: cannot be written \(File too la"):
        checkpointer.save("model_final", iteration=7)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert resumed(cfg) == 5


def test_the_folder_of_a_run_vanishes(cfg, out):
    checkpointer = FrameworkCheckpointer(Pair(), cfg, trainer=Loop(7))
    shutil.rmtree(out)
    with pytest.raises(UnwritableError, match=r"model_final\.pth: cannot be written .*; its folder is gone"):
        checkpointer.save("model_final", iteration=7)


def test_room_is_looked_for_before_the_first_step(cfg, out, monkeypatch, caplog):
    checkpointer = FrameworkCheckpointer(Pair(), cfg, trainer=Loop())
    monkeypatch.setattr("wpl_d2.checkpoint.run_folder.free_space", lambda _: 5 * 2**20)
    checkpointer.check_disk_space(2**20, keep=6)  # 8 in all, 3 of which are there
    assert not caplog.text
    checkpointer.check_disk_space(2**20, keep=7)
    assert "has 5.0 MiB free, and the 6 checkpoints to come take 1.0 MiB each" in caplog.text
    with pytest.raises(InputError, match=r"^OUTPUT_DIR: \S+ has 5.0 MiB free, and one checkpoint takes 5.2 MiB; make"):
        checkpointer.check_disk_space(int(5.2 * 2**20), keep=1)


def test_the_size_of_a_checkpoint_is_about_that_of_its_file(out):
    path = out / "model_final.pth"
    assert 0 < tensor_bytes(load_checkpoint(str(path))) < path.stat().st_size


def test_evaluation_takes_the_same_checkpoint_and_claims_nothing(cfg, out):
    flip(out / "model_final.pth", "data/0")
    model = Pair()
    assert FrameworkCheckpointer(model, cfg).resume()
    expected = torch.load(out / "model_0000003.pth")["model"]
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_initial_weights_of_a_damaged_checkpoint_are_refused(cfg, out):
    flip(out / "model_final.pth", "data/0")
    cfg.MODEL.WEIGHTS = str(out / "model_final.pth")
    with pytest.raises(InputError, match=r"model_final\.pth: cannot be read \(Bad CRC-32 .*data/0"):
        load_initial_weights(Pair().student, cfg)
