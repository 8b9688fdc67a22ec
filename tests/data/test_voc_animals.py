"""VOC animals: its lists, and how it is made from VOC 2012 and SBD."""

import os
import runpy
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from wpl_d2.data import load_description, read_mask
from wpl_d2.data.image_io import read_image
from wpl_d2.data.preparation import BENCHMARKS, new_split, parse_fraction, published_lists, write_unlabeled_lists
from wpl_d2.data.preparation.prepare import prepare_images
from wpl_d2.data.preparation.splits import keys_digest, list_file, read_list_keys
from wpl_d2.data.preparation.voc_animals import CLASS_IDS, resized_size

TOOL = Path(__file__).resolve().parents[2] / "tools/prepare_dataset.py"
ANIMALS = BENCHMARKS["voc_animals"]
LISTS = ANIMALS.own_lists
# The first image of each list; what is in extra has a mask or has none.
TRAIN, DEV, VAL = (min(LISTS[name]) for name in ("train", "dev", "val"))
EXTRA, BARE = min(LISTS["extra"] - ANIMALS.unmasked), min(ANIMALS.unmasked)
SIZES = {TRAIN: (500, 375), DEV: (333, 500), VAL: (400, 300), EXTRA: (500, 334), BARE: (60, 40)}
SMALL = {TRAIN: (342, 256), DEV: (256, 384), VAL: (341, 256), EXTRA: (383, 256), BARE: (384, 256)}
BACKGROUND, AEROPLANE, CAT, DOG, PERSON = 0, 1, 8, 12, 15


def save(file, array, palette=False):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array, dtype=np.uint8), mode="P" if palette else None)
    if palette:
        image.putpalette([7 * i % 256 for i in range(768)])
    image.save(file)


def halves(key, left, right):
    width, height = SIZES[key]
    mask = np.full((height, width), left)
    mask[:, width // 2 :] = right
    return mask


@pytest.fixture
def archives(tmp_path):
    """VOC2012/ with five images of the set, their left halves dark, and one of another; and where the set will be."""
    voc = tmp_path / "VOC2012"
    for key in SIZES:
        save(voc / f"JPEGImages/{key}.jpg", np.stack([halves(key, 20, 200)] * 3, axis=-1))
    save(voc / "JPEGImages/2007_000027.jpg", np.zeros((40, 60, 3)))
    for key, ids in ((TRAIN, (CAT, 255)), (DEV, (AEROPLANE, PERSON)), (VAL, (BACKGROUND, DOG))):
        save(voc / f"SegmentationClass/{key}.png", halves(key, *ids), palette=True)
    # SBD has masks of official images too, which are not asked for.
    for key, ids in ((EXTRA, (PERSON, DOG)), (TRAIN, (DOG, DOG)), (VAL, (DOG, DOG))):
        file = voc / f"benchmark_RELEASE/dataset/cls/{key}.mat"
        file.parent.mkdir(parents=True, exist_ok=True)
        savemat(file, {"GTcls": {"Segmentation": halves(key, *ids).astype(np.uint8)}})
    return tmp_path / "voc_animals"


def prepare(root):
    """Prepare; that made-up trees are smaller than the set, if for want of an archive, goes without saying."""
    done = prepare_images(ANIMALS, load_description(ANIMALS.description, root), workers=1)
    small = ("published images of", "images that are not there", ": is missing; unpack")
    return done.masks, [problem for problem in done.problems if not any(words in problem for words in small)]


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["prepare_dataset.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(TOOL), run_name="__main__")
    return stop.value.code


def made(root):
    return {file: file.stat().st_mtime_ns for file in root.rglob("*") if file.is_file()}


def test_the_lists_are_those_that_their_checksums_are_of():
    assert {name: keys_digest(keys) for name, keys in LISTS.items()} == {
        name: known.digest for name, known in published_lists("voc_animals").items()
    }
    assert [len(LISTS[name]) for name in ("train", "dev", "val", "extra")] == [437, 223, 222, 2726]
    whole = Counter(key for name in ("train", "dev", "val", "extra") for key in LISTS[name])
    assert (len(whole), set(whole.values())) == (3608, {1})
    assert (len(ANIMALS.unmasked), ANIMALS.unmasked < LISTS["extra"]) == (32, True)
    splits = load_description(ANIMALS.description).splits
    assert len(splits) == 9
    for split in splits:
        labeled, unlabeled = LISTS[f"{split}_labeled"], LISTS[f"{split}_unlabeled"]
        assert len(labeled) == {"1_16": 27, "1_8": 55, "1_4": 109}[split[:4].rstrip("_")]
        assert (labeled < LISTS["train"], labeled & unlabeled) == (True, set())
        assert labeled | unlabeled == LISTS["train"] | LISTS["extra"]


def test_the_lists_are_those_of_the_data(shared):
    root = shared / "voc_animals"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    assert {file.stem: set(file.read_text().split()) for file in (root / "splits").glob("*.txt")} == LISTS
    assert {file.stem for file in (root / "masks").iterdir()} == set().union(*LISTS.values()) - ANIMALS.unmasked


def test_the_lists_are_of_the_lists_of_voc(shared):
    pascal = shared / "splits/unimatch/pascal"
    voc = BENCHMARKS["voc"]
    train, val, added = (
        set(voc.parse_keys((pascal / name).read_text())) for name in ("1464/labeled.txt", "val.txt", "train_aug.txt")
    )
    assert LISTS["train"] < train
    assert LISTS["dev"] | LISTS["val"] < val
    assert LISTS["extra"] - ANIMALS.unmasked < added - train
    assert not ANIMALS.unmasked & (added | val)


def test_classes_are_found_by_their_names():
    voc, animals = (load_description(BENCHMARKS[name].description).classes for name in ("voc", "voc_animals"))
    expected = {i: animals.index(name) for i, name in enumerate(voc) if name in animals}
    assert {i: int(c) for i, c in enumerate(CLASS_IDS) if c != 255} == expected


@pytest.mark.parametrize(
    ("size", "small"),
    [
        ((500, 375), (342, 256)),  # 341.3 in one step; 426.7 -> 427 -> 341.6
        ((375, 500), (256, 342)),
        ((500, 338), (378, 256)),  # 378.7; 473.4 -> 473 -> 378.4
        ((500, 340), (377, 256)),  # 376.5
        ((500, 333), (384, 256)),
        ((500, 320), (400, 256)),
        ((500, 319), (401, 256)),  # not above 320: one step
        ((500, 500), (256, 256)),
        ((256, 256), (256, 256)),
        ((100, 30), (853, 256)),
        ((1, 1), (256, 256)),
    ],
)
def test_sizes_are_rounded_as_those_of_the_measured_photos(size, small):
    assert resized_size(*size) == small


def test_the_longer_sides_of_the_data_are_those_of_the_rule(shared):
    """Most of VOC's photos are 500 pixels long, and of these most 375 high."""
    images = shared / "voc_animals/images"
    if not images.is_dir():
        pytest.skip(f"{images} is not there")
    lengths = Counter()
    for file in images.iterdir():
        with Image.open(file) as image:
            assert min(image.size) == 256
            lengths[max(image.size)] += 1
    assert lengths.most_common(1)[0][0] == resized_size(500, 375)[0]
    by_rule, at_once = (
        {length(shorter) for shorter in range(60, 501)}
        for length in (lambda shorter: resized_size(500, shorter)[0], lambda shorter: round(500 * 256 / shorter))
    )
    assert len(at_once - by_rule) > 10
    assert sum(lengths[length] for length in at_once - by_rule) < 10  # other lengths are those of 14 photos each


def test_photos_and_masks_are_made_small_from_voc_and_sbd(archives):
    masks, problems = prepare(archives)
    assert (masks, problems) == ({"train": (1, 0), "extra": (1, 0), "dev": (1, 0), "val": (1, 0)}, [])
    assert {file.stem for file in (archives / "images").iterdir()} == set(SIZES)
    assert {file.stem for file in (archives / "masks").iterdir()} == set(SIZES) - {BARE}
    # cat, cow, dog, horse, sheep and person are 1 to 6; aeroplanes and void are no class
    for key, ids in {TRAIN: (1, 255), DEV: (255, 6), VAL: (0, 3), EXTRA: (6, 3)}.items():
        mask = read_mask(archives / f"masks/{key}.png")
        width, height = SMALL[key]
        expected = np.full((height, width), ids[0])
        expected[:, -(-width // 2) :] = ids[1]
        different = (mask != expected).any(axis=0)
        assert mask.shape == expected.shape
        assert set(np.flatnonzero(different)) <= {width // 2 - 1, width // 2}
    for key, (width, height) in SMALL.items():
        photo = read_image(archives / f"images/{key}.jpg")
        assert photo.shape == (height, width, 3)
        assert abs(photo[:, 5].astype(int) - 20).max() < 6 and abs(photo[:, -5].astype(int) - 200).max() < 6
    records = load_description(ANIMALS.description, archives).records("1_8_unlabeled")
    assert len(records) == 3108
    assert {Path(r["file_name"]).stem: "sem_seg_file_name" in r for r in records if Path(r["file_name"]).is_file()} == {
        EXTRA: True,
        BARE: False,
        **({TRAIN: True} if TRAIN in LISTS["1_8_unlabeled"] else {}),
    }


def test_a_second_run_makes_nothing_and_what_is_broken_again(archives):
    prepare(archives)
    files = made(archives)
    kept = {"train": (0, 1), "extra": (0, 1), "dev": (0, 1), "val": (0, 1)}
    assert prepare(archives) == (kept, [])
    assert made(archives) == files
    photo, mask = archives / f"images/{DEV}.jpg", archives / f"masks/{EXTRA}.png"
    whole = {file: file.read_bytes() for file in (photo, mask)}
    for file in whole:
        file.write_bytes(file.read_bytes()[:-20])
    assert prepare(archives) == (kept | {"extra": (1, 0)}, [])
    assert {file: file.read_bytes() for file in whole} == whole


@pytest.mark.parametrize("folder", ["SegmentationClass", "SegmentationClassAug"])
def test_ready_masks_do_without_sbd(archives, folder):
    """As VOC's own preparation leaves them, or as others publish them."""
    prepare(archives)
    expected = {file: file.read_bytes() for file in (archives / "masks").iterdir()}
    shutil.rmtree(archives)
    voc = archives.parent / "VOC2012"
    shutil.rmtree(voc / "benchmark_RELEASE")
    save(voc / folder / f"{EXTRA}.png", halves(EXTRA, PERSON, DOG))
    if folder == "SegmentationClassAug":  # of official images it has masks too, which are not asked for
        save(voc / folder / f"{TRAIN}.png", halves(TRAIN, DOG, DOG))
    assert prepare(archives) == ({"train": (1, 0), "extra": (1, 0), "dev": (1, 0), "val": (1, 0)}, [])
    assert {file: file.read_bytes() for file in (archives / "masks").iterdir()} == expected


def test_without_sbd_it_says_what_to_fetch(archives):
    shutil.rmtree(archives.parent / "VOC2012/benchmark_RELEASE")
    description = load_description(ANIMALS.description, archives)
    done = prepare_images(ANIMALS, description, workers=1)
    assert done.masks == {"train": (1, 0), "extra": (0, 0), "dev": (1, 0), "val": (1, 0)}
    place = archives.parent / "VOC2012/benchmark_RELEASE/dataset/cls"
    assert done.problems[0] == f"{place}: is missing; unpack benchmark.tgz ({ANIMALS.archives[1].address})"
    assert f"{archives}: has 1 of the 2726 published images of 'extra'; complete the data set" in done.problems


def test_without_voc_it_says_what_to_fetch_and_a_finished_set_is_well(archives, monkeypatch, capsys):
    prepare(archives)
    shutil.rmtree(archives.parent / "VOC2012")
    assert prepare(archives)[0] == {"train": (0, 1), "extra": (0, 1), "dev": (0, 1), "val": (0, 1)}
    assert run_tool(monkeypatch, "voc_animals", "--root", archives.parent / "none", "--workers", 1) == 1
    printed = capsys.readouterr().out
    assert (
        f"{archives.parent / 'VOC2012/JPEGImages'}: is missing; unpack VOCdevkit/VOC2012 of VOCtrainval_11" in printed
    )
    assert "benchmark.tgz" in printed
    assert "has 0 of the 437 published images of 'train'" in printed


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (f"JPEGImages/{DEV}.jpg", b"broken", "cannot be read"),
        (f"SegmentationClass/{TRAIN}.png", b"broken", "cannot be read"),
        (f"SegmentationClass/{TRAIN}.png", np.zeros((375, 500, 3)), "is an RGB image"),
        (f"SegmentationClass/{TRAIN}.png", np.full((375, 500), 21), "holds ids above 20"),
        (f"benchmark_RELEASE/dataset/cls/{EXTRA}.mat", b"broken", "is not an SBD mask"),
        (f"SegmentationClass/{TRAIN}.png", np.zeros((500, 375)), "the mask is 256x342 (width x height), its image 342"),
    ],
)
def test_what_is_wrong_is_named_and_the_rest_made(archives, file, content, message):
    path = archives.parent / "VOC2012" / file
    path.write_bytes(content) if isinstance(content, bytes) else save(path, content)
    masks, (problem,) = prepare(archives)
    assert message in problem
    assert path.stem in problem
    assert sum(count for count, _ in masks.values()) == 3 + file.startswith("JPEG")


def test_files_of_somebody_elses_stay_out(archives):
    """Other photos of VOC, and the halves of files that a Mac leaves in an archive."""
    voc = archives.parent / "VOC2012"
    for name in (f"JPEGImages/._{TRAIN}.jpg", f"SegmentationClass/._{TRAIN}.png"):
        (voc / name).write_bytes(b"Mac OS X")
    assert prepare(archives)[1] == []
    assert {file.stem for file in (archives / "images").iterdir()} == set(SIZES)


def test_another_list_of_the_same_name_is_not_overwritten(archives):
    (archives / "splits").mkdir(parents=True)
    (archives / "splits/1_8_labeled.txt").write_text(f"{DEV}\n")
    with pytest.raises(ValueError, match=r"1_8_labeled\.txt: has 1 images, and not just those of the 55"):
        prepare(archives)
    assert (archives / "splits/1_8_labeled.txt").read_text() == f"{DEV}\n"


def test_every_split_has_the_extra_images_unlabeled(archives):
    prepare(archives)
    mine = sorted(LISTS["train"])[:3]
    list_file(archives, "mine_labeled").write_text("\n".join(mine))
    assert write_unlabeled_lists(ANIMALS, archives) == []
    expected = (LISTS["train"] | LISTS["extra"]) - set(mine)
    assert read_list_keys(ANIMALS, archives, "mine_unlabeled") == expected


def test_a_new_split_is_drawn_as_those_that_are_there(shared, tmp_path):
    real = shared / "voc_animals"
    if not real.is_dir():
        pytest.skip(f"{real} is not there")
    for name in ("images", "masks"):
        os.symlink(real / name, tmp_path / name)
    shutil.copytree(real / "splits", tmp_path / "splits")
    description = load_description(ANIMALS.description, tmp_path)
    for seed in (3, 4):
        name = new_split(ANIMALS, description, parse_fraction("1/8"), seed, balanced=False, workers=1)
        assert name == f"1_8_seed{seed}"
        labeled, unlabeled = (read_list_keys(ANIMALS, tmp_path, f"{name}_{kind}") for kind in ("labeled", "unlabeled"))
        assert (len(labeled), labeled < LISTS["train"]) == (55, True)
        assert unlabeled == (LISTS["train"] | LISTS["extra"]) - labeled
        shown = Counter(c for key in labeled for c in np.unique(read_mask(real / f"masks/{key}.png")).tolist())
        assert min(shown[c] for c in description.object_ids) >= 6  # a tenth
    with pytest.raises(ValueError, match=r"draws of 2 images 1/10 of them show each of the objects; take a larger"):
        new_split(ANIMALS, description, parse_fraction("1/400"), 0, balanced=False, workers=1)
    assert "1_8_seed4_labeled" in load_description(ANIMALS.description, tmp_path).lists
    assert not [name for name in load_description(ANIMALS.description, tmp_path).lists if name.startswith("1_400")]


@pytest.mark.slow
def test_the_real_set_needs_nothing(shared, tmp_path, monkeypatch, capsys):
    real = shared / "voc_animals"
    if not real.is_dir():
        pytest.skip(f"{real} is not there")
    root = tmp_path / "voc_animals"
    shutil.copytree(real / "splits", root / "splits")
    for name in ("images", "masks"):
        os.symlink(real / name, root / name)
    before = made(real)
    assert run_tool(monkeypatch, "voc_animals", "--root", root, "--workers", 2) == 0
    assert "0 problems" in capsys.readouterr().out
    assert made(real) == before
