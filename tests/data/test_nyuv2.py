"""NYUv2: its lists, and the folder that they are written into."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wpl_d2.data import load_description
from wpl_d2.data.preparation import BENCHMARKS, published_lists
from wpl_d2.data.preparation.prepare import prepare_images
from wpl_d2.data.preparation.splits import keys_digest, read_list_keys

TOOL = Path(__file__).resolve().parents[2] / "tools/prepare_dataset.py"
NYUV2 = BENCHMARKS["nyuv2"]
LISTS = NYUV2.own_lists
COUNTS = {"train": 795, "dev": 327, "val": 327}
IMAGES = [key for name in COUNTS for key in sorted(LISTS[name])[:2]]


@pytest.fixture
def root(tmp_path):
    """Two images of each list, with masks."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for key in IMAGES:
        Image.fromarray(np.full((3, 4, 3), 99, dtype=np.uint8)).save(tmp_path / f"images/{key}.jpg")
        save_mask(tmp_path, key)
    return tmp_path


def save_mask(root, key, shape=(3, 4), dtype=np.uint8):
    mask = np.full(shape, 12, dtype=dtype)
    mask[0, 0] = 255
    Image.fromarray(mask).save(root / f"masks/{key}.png")


def problems_of(root):
    return prepare_images(NYUV2, load_description(NYUV2.description, root), workers=1).problems


def run_tool(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["prepare_dataset.py", "nyuv2", "--workers", "1", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(TOOL), run_name="__main__")
    return stop.value.code, capsys.readouterr().out


def test_the_lists_are_those_that_their_checksums_are_of():
    assert {name: (len(keys), keys_digest(keys)) for name, keys in LISTS.items()} == {
        name: (known.images, known.digest) for name, known in published_lists("nyuv2").items()
    }
    assert {name: len(LISTS[name]) for name in COUNTS} == COUNTS
    assert sorted(key for name in COUNTS for key in LISTS[name]) == [f"{number:04}" for number in range(1, 1450)]
    splits = load_description(NYUV2.description).splits
    assert len(LISTS) == len(COUNTS) + 2 * len(splits) == 21
    for split in splits:
        labeled = LISTS[f"{split}_labeled"]
        assert len(labeled) == {"1_16": 50, "1_8": 99, "1_4": 199}[split[:4].rstrip("_")]
        assert labeled < LISTS["train"]
        assert LISTS[f"{split}_unlabeled"] == LISTS["train"] - labeled


def test_the_files_written_are_those_of_the_data(shared, root):
    real = shared / "nyuv2/splits"
    if not real.is_dir():
        pytest.skip(f"{real} is not there")
    problems_of(root)
    written, expected = (
        {file.name: file.read_bytes() for file in folder.iterdir()} for folder in (root / "splits", real)
    )
    assert written == expected


def test_images_and_masks_are_kept_and_counted(root):
    done = prepare_images(NYUV2, load_description(NYUV2.description, root), workers=1)
    assert done.masks == dict.fromkeys(COUNTS, (0, 2))
    assert [problem for problem in done.problems if "published images of" in problem] == [
        f"{root}: has 2 of the {count} published images of {name!r}; complete the data set"
        for name, count in COUNTS.items()
    ]
    assert any(f"{root / 'splits/train.txt'}: names 793 of 795 images that are not there" in p for p in done.problems)
    records = {record["image_id"]: record for record in load_description(NYUV2.description, root).records("val")}
    assert [key for key in records if "sem_seg_file_name" in records[key]] == sorted(LISTS["val"])[:2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mask: mask.unlink(), "No such file"),
        (lambda mask: mask.write_bytes(b"broken"), "cannot be read"),
        (lambda mask: Image.new("RGB", (4, 3)).save(mask), "is an RGB image"),
        (lambda mask: Image.new("L", (3, 4)).save(mask), "the mask is 3x4 (width x height), its image 4x3"),
    ],
)
def test_a_wrong_mask_is_named(root, change, message):
    mask = root / f"masks/{IMAGES[0]}.png"
    change(mask)
    (problem,) = (problem for problem in problems_of(root) if problem.startswith(f"{mask}: "))
    assert message in problem


@pytest.mark.parametrize("folders", [(), ("images",), ("masks",)])
def test_what_must_be_put_there_is_said(folders, tmp_path, monkeypatch, capsys):
    for folder in folders:
        (tmp_path / folder).mkdir()
    code, printed = run_tool(monkeypatch, capsys, "--root", tmp_path)
    said = {archive.contents[0]: f"{archive.file} ({archive.address})" for archive in NYUV2.archives}
    assert code == 1
    for folder, text in said.items():
        assert (f"{tmp_path / folder}: is missing; unpack {text}" in printed) == (folder not in folders)
    assert "has 0 of the 795 published images of 'train'" in printed
    assert "nyuv2_1_4_c_labeled " in printed
    assert printed.count("as published") == 21


def test_a_new_split_is_a_share_of_train(root, monkeypatch, capsys):
    for key in sorted(LISTS["train"])[:60]:
        (root / f"images/{key}.jpg").touch()
        save_mask(root, key)
    _, printed = run_tool(monkeypatch, capsys, "--root", root, "--fraction", "1/16", "--seed", "3")
    assert "new: 1_16_seed3, 1/16 of all images in" in printed
    labeled, unlabeled = (read_list_keys(NYUV2, root, f"1_16_seed3_{kind}") for kind in ("labeled", "unlabeled"))
    assert (len(labeled), labeled < LISTS["train"]) == (50, True)
    assert unlabeled == LISTS["train"] - labeled
    assert "1_16_seed3_labeled" in load_description(NYUV2.description, root).lists
