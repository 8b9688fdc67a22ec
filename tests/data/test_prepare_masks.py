import json
import os
from pathlib import PurePath

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO as CocoApi
from scipy.io import savemat

from wpl_d2.data import load_description, read_mask
from wpl_d2.data.preparation import BENCHMARKS, drop_system_files, prepare_images, write_unlabeled_lists
from wpl_d2.data.preparation.benchmark import read_ids
from wpl_d2.utils.files import is_system_file, replace_file

VOC = BENCHMARKS["voc"]
OWN_TRAIN, OWN_VAL, SBD_ONLY = "2007_000001", "2007_000002", "2008_000003"


def prepare(name, root):
    """Prepare; that these trees have fewer images than published goes without saying."""
    done = prepare_images(BENCHMARKS[name], load_description(BENCHMARKS[name].description, root), workers=2)
    done.problems = [problem for problem in done.problems if "published images of" not in problem]
    return done


def write(file, array, mode=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array, dtype=np.uint8), mode=mode)
    if mode == "P":
        image.putpalette([7 * i % 256 for i in range(768)])
    image.save(file)


def image(file, height=4, width=6):
    write(file, np.zeros((height, width, 3)))


def filled(value):
    return np.full((4, 6), value, dtype=np.uint8)


def make_voc(root, place="benchmark_RELEASE/dataset"):
    for key in (OWN_TRAIN, OWN_VAL, SBD_ONLY):
        image(root / f"JPEGImages/{key}.jpg")
        sbd = root / place / "cls" / f"{key}.mat"
        sbd.parent.mkdir(parents=True, exist_ok=True)
        savemat(sbd, {"GTcls": {"Boundaries": np.zeros((20, 1)), "Segmentation": filled(15)}})
    write(root / f"SegmentationClass/{OWN_TRAIN}.png", filled(1), mode="P")
    write(root / f"SegmentationClass/{OWN_VAL}.png", [[2, 2, 2, 2, 255, 255]] * 4, mode="P")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(f"{OWN_TRAIN}\n")
    (lists / "val.txt").write_text(f"{OWN_VAL}\n")


def masks(root, folder="SegmentationClass"):
    return {file.stem: read_mask(file).max() for file in (root / folder).glob("*.png")}


@pytest.mark.parametrize("place", ["benchmark_RELEASE/dataset", "dataset", "SBD"])
def test_sbd_fills_in_what_voc_has_not(tmp_path, place):
    make_voc(tmp_path, place)
    done = prepare("voc", tmp_path)
    assert masks(tmp_path) == {OWN_TRAIN: 1, OWN_VAL: 255, SBD_ONLY: 15}
    assert read_mask(tmp_path / f"SegmentationClass/{SBD_ONLY}.png").shape == (4, 6)
    assert (done.masks, done.problems) == ({"train": (1, 1), "val": (0, 1)}, [])
    assert read_ids(tmp_path / "splits/train.txt") == {OWN_TRAIN, SBD_ONLY}
    assert read_ids(tmp_path / "splits/val.txt") == {OWN_VAL}


def test_a_second_run_makes_nothing_and_a_broken_mask_again(tmp_path):
    make_voc(tmp_path)
    prepare("voc", tmp_path)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    assert prepare("voc", tmp_path).masks == {"train": (0, 2), "val": (0, 1)}
    assert files == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    made = tmp_path / f"SegmentationClass/{SBD_ONLY}.png"
    made.write_bytes(made.read_bytes()[:-20])
    assert prepare("voc", tmp_path).masks == {"train": (1, 1), "val": (0, 1)}
    assert read_mask(made).max() == 15


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    file = tmp_path / "mask.png"
    file.write_text("old")

    def stop(unfinished):
        unfinished.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(file, stop)
    assert [(path, path.read_text()) for path in tmp_path.iterdir()] == [(file, "old")]


def test_ready_masks_of_others_do_without_sbd(tmp_path):
    make_voc(tmp_path)
    os.rename(tmp_path / "benchmark_RELEASE", tmp_path / "away")
    write(tmp_path / f"SegmentationClassAug/{SBD_ONLY}.png", filled(7))
    write(tmp_path / f"SegmentationClassAug/{OWN_TRAIN}.png", filled(7))
    done = prepare("voc", tmp_path)
    assert masks(tmp_path) == {OWN_TRAIN: 1, OWN_VAL: 255, SBD_ONLY: 7}
    (missing,) = done.problems  # the tree is smaller than the published one, which SBD could be the reason of
    assert "benchmark_RELEASE/dataset/cls: is missing; unpack benchmark.tgz (https://www2.eecs.berkeley" in missing


@pytest.mark.parametrize(
    ("mat", "message"),
    [
        ({"GTcls": {"Segmentation": filled(21)}}, "holds ids above 20"),
        ({"GTinst": {"Segmentation": filled(1)}}, "is not an SBD mask"),
        (b"broken", "is not an SBD mask"),
    ],
)
def test_wrong_sbd_masks_are_named_and_the_others_made(tmp_path, mat, message):
    make_voc(tmp_path)
    file = tmp_path / "benchmark_RELEASE/dataset/cls/2008_000009.mat"
    file.write_bytes(mat) if isinstance(mat, bytes) else savemat(file, mat)
    done = prepare("voc", tmp_path)
    assert masks(tmp_path)[SBD_ONLY] == 15
    assert done.problems[0].startswith(f"{file}: {message}")
    assert done.problems[1] == (
        f"{tmp_path / 'splits/train.txt'}: names 1 of 3 images that are not there, such as JPEGImages/2008_000009.jpg; "
        "unpack the archive again"
    )


def test_vocs_own_masks_are_never_replaced(tmp_path):
    make_voc(tmp_path)
    file = tmp_path / f"SegmentationClass/{OWN_TRAIN}.png"
    write(file, np.zeros((4, 6, 3)))
    colors = file.read_bytes()
    (problem,) = prepare("voc", tmp_path).problems
    assert problem.startswith(f"{file}: is missing, broken or a color image; unpack")
    assert file.read_bytes() == colors


def test_an_empty_folder_says_what_to_fetch(tmp_path):
    for name, words in (
        ("voc", ["VOCtrainval_11-May-2012.tar", "benchmark.tgz", "val.txt"]),
        ("cityscapes", ["leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"]),
        ("coco", ["train2017.zip", "val2017.zip", "annotations_trainval2017.zip"]),
        ("ade20k", ["ADEChallengeData2016.zip"]),
    ):
        text = "\n".join(prepare(name, tmp_path / name).problems)
        assert all(word in text for word in words)
        assert "http" in text


def test_more_archives_complete_the_training_list_and_other_lists_are_respected(tmp_path):
    make_voc(tmp_path)
    os.rename(tmp_path / "benchmark_RELEASE", tmp_path / "away")
    prepare("voc", tmp_path)
    assert read_ids(tmp_path / "splits/train.txt") == {OWN_TRAIN}
    os.rename(tmp_path / "away", tmp_path / "benchmark_RELEASE")
    prepare("voc", tmp_path)
    assert read_ids(tmp_path / "splits/train.txt") == {OWN_TRAIN, SBD_ONLY}
    larger = f"{OWN_TRAIN}\n{SBD_ONLY}\n2009_000001\n"
    for name in ("train", "92_unlabeled"):  # what a list before it named is told once
        (tmp_path / f"splits/{name}.txt").write_text(larger)
    (problem,) = prepare("voc", tmp_path).problems
    assert "train.txt: names 1 of 3 images that are not there, such as JPEGImages/2009_000001.jpg; unpack" in problem
    assert (tmp_path / "splits/train.txt").read_text() == larger
    (tmp_path / "splits/train.txt").write_text("2009_000001\n")
    with pytest.raises(ValueError, match=r"train\.txt: has 1 images, and not just those of the 2"):
        prepare("voc", tmp_path)


def test_fewer_images_than_published_are_told(tmp_path):
    make_voc(tmp_path)
    problems = prepare_images(VOC, load_description(VOC.description, tmp_path), workers=1).problems
    assert [problem.partition("; ")[0] for problem in problems] == [
        f"{tmp_path}: has 2 of the 10582 published images of 'train'",
        f"{tmp_path}: has 1 of the 1449 published images of 'val'",
    ]


def test_a_mask_is_as_large_as_its_image_as_it_is_shown(tmp_path):
    make_voc(tmp_path)
    prepare("voc", tmp_path)
    own, made = (tmp_path / f"SegmentationClass/{key}.png" for key in (OWN_TRAIN, SBD_ONLY))
    for file in (own, made):
        write(file, [[1, 1]])
    done = prepare("voc", tmp_path)
    (problem,) = done.problems
    assert problem.startswith(f"{own}: the mask is 2x1 (width x height), its image 6x4; unpack its archive again")
    assert (read_mask(made).shape, done.masks["train"]) == ((4, 6), (1, 0))
    image(tmp_path / f"JPEGImages/{SBD_ONLY}.jpg", 5, 5)
    made.unlink()
    assert f"{made}: the mask is 6x4 (width x height), its image 5x5, so it was not made" in (
        "\n".join(prepare("voc", tmp_path).problems)
    )
    assert not made.exists()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    Image.new("RGB", (4, 6)).save(tmp_path / f"JPEGImages/{SBD_ONLY}.jpg", exif=exif)
    assert prepare("voc", tmp_path).masks["train"] == (1, 0)


LEFTOVERS = ["._{}", ".{}.swp", "{}~", "#{}#", ".DS_Store", "Thumbs.db", "desktop.ini"]


def leave_behind(folder, name):
    """Files as macOS, Windows and editors leave them beside the one of that name."""
    for leftover in LEFTOVERS:
        (folder / leftover.format(name)).write_bytes(b"\0\5\x16\7")


def lists(root):
    return {file.name: file.read_text() for file in (root / "splits").glob("*.txt")}


def test_leftovers_of_systems_and_editors_are_no_images(tmp_path):
    make_voc(tmp_path / "clean")
    make_voc(tmp_path / "voc")
    leave_behind(tmp_path / "voc/SegmentationClass", f"{OWN_TRAIN}.png")
    leave_behind(tmp_path / "voc/benchmark_RELEASE/dataset/cls", f"{SBD_ONLY}.mat")
    leave_behind(tmp_path / "voc/JPEGImages", f"{OWN_TRAIN}.jpg")
    write(tmp_path / "voc/SegmentationClassAug/._2007_000009.png", filled(1))
    make_cityscapes(tmp_path / "clean_city")
    make_cityscapes(tmp_path / "city")
    leave_behind(tmp_path / "city/leftImg8bit/train/ulm", "ulm_000000_000019_leftImg8bit.png")
    leave_behind(tmp_path / "city/gtFine/train/ulm", "ulm_000000_000019_gtFine_labelIds.png")
    for name, clean, folder in (("voc", "clean", "voc"), ("cityscapes", "clean_city", "city")):
        expected, done = prepare(name, tmp_path / clean), prepare(name, tmp_path / folder)
        assert (done.masks, done.problems) == (expected.masks, [])
        assert lists(tmp_path / folder) == lists(tmp_path / clean)


def test_images_of_other_names_are_told_and_stay_out_of_the_lists(tmp_path):
    make_voc(tmp_path)
    for name in ("2007_000001 (1)", "copy of 2007_000001", "mine"):
        write(tmp_path / f"SegmentationClass/{name}.png", filled(1))
    for _ in range(2):
        done = prepare("voc", tmp_path)
        (problem,) = done.problems
        assert problem.startswith("voc: 3 images have names that it does not give, such as 2007_000001 (1), copy of")
        assert lists(tmp_path)["train.txt"] == f"{OWN_TRAIN}\n{SBD_ONLY}\n"


@pytest.mark.parametrize(
    "leftover", ["._2007_000000", ".DS_Store", "Thumbs.db", "JPEGImages/._a.jpg", "train/./._x_1_2"]
)
def test_a_list_that_names_leftovers_is_mended(tmp_path, leftover):
    """As an earlier version wrote it, which then refused its own list for ever."""
    make_voc(tmp_path)
    prepare("voc", tmp_path)
    good = lists(tmp_path)
    file = tmp_path / "splits/train.txt"
    file.write_text(f"{leftover}\n{good['train.txt']}")
    (tmp_path / "splits/mine_labeled.txt").write_text(f"{OWN_TRAIN}\n{leftover} {leftover}\n")
    (tmp_path / "splits/._train.txt").write_bytes(b"\0\5\x16\7")
    told = drop_system_files(tmp_path)
    assert [text.partition(":")[0] for text in told] == [
        str(tmp_path / f"splits/{n}.txt") for n in ("mine_labeled", "train")
    ]
    assert f"named 1 files that are not images, such as {leftover}" in told[1]
    assert drop_system_files(tmp_path) == []
    done = prepare("voc", tmp_path)
    assert done.problems == [] and write_unlabeled_lists(VOC, tmp_path) == []
    (tmp_path / "splits/._train.txt").unlink()
    assert lists(tmp_path) == {
        **good,
        "mine_labeled.txt": f"{OWN_TRAIN}\n",
        "mine_unlabeled.txt": f"{SBD_ONLY}\n",
    }


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("._a.png", True),
        (".DS_Store", True),
        ("THUMBS.DB", True),
        ("__MACOSX/images/a.png", True),
        ("images/.ipynb_checkpoints/a-checkpoint.png", True),
        ("images/@eaDir/a.png", True),
        ("a.png~", True),
        ("~$a.png", True),
        ("#a.png#", True),
        (".a.png.77.partial", True),
        ("a.png.bak", True),
        ("a.png", False),
        ("a..png", False),
        ("../images/a.png", False),
        ("./a.png", False),
        ("a~1.png", False),
        ("#1.png", False),
        ("thumbs.db.png", False),
        ("my.bak/a.png", False),
        ("photos.tmp/#1#/a.png", False),
    ],
)
def test_leftovers(path, expected):
    assert is_system_file(PurePath(path)) == expected


CITY_IDS = np.array([[7, 8, 11, 33, 0, 6, 18, 29]], dtype=np.uint8)


def make_cityscapes(root):
    for part, key in (
        ("train", "ulm_000000_000019"),
        ("train", "aachen_000001_000019"),
        ("val", "lindau_000000_000019"),
    ):
        folder = f"{part}/{key.split('_')[0]}"
        image(root / f"leftImg8bit/{folder}/{key}_leftImg8bit.png", 1, 8)
        write(root / f"gtFine/{folder}/{key}_gtFine_labelIds.png", CITY_IDS)


def test_cityscapes_label_ids_become_train_ids(tmp_path):
    make_cityscapes(tmp_path)
    done = prepare("cityscapes", tmp_path)
    assert (done.masks, done.problems) == ({"train": (2, 0), "val": (1, 0)}, [])
    assert (
        tmp_path / "splits/train.txt"
    ).read_text() == "train/aachen/aachen_000001_000019\ntrain/ulm/ulm_000000_000019\n"
    mask = Image.open(tmp_path / "gtFine/val/lindau/lindau_000000_000019_gtFine_labelTrainIds.png")
    assert mask.mode == "L"
    assert np.asarray(mask).tolist() == [[0, 1, 2, 18, 255, 255, 255, 255]]


def test_cityscapes_test_images_get_a_list_and_no_masks(tmp_path):
    make_cityscapes(tmp_path)
    stem = "test/bonn/bonn_000000_000019"
    image(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png", 1, 8)
    write(tmp_path / f"gtFine/{stem}_gtFine_labelIds.png", np.zeros((1, 8)))
    done = prepare("cityscapes", tmp_path)
    assert (done.masks, done.problems) == ({"train": (2, 0), "val": (1, 0)}, [])
    assert not list((tmp_path / "gtFine/test").rglob("*TrainIds*"))
    description = load_description(BENCHMARKS["cityscapes"].description, tmp_path)
    (record,) = description.records("test_unlabeled")
    assert record["file_name"] == str(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png")
    assert "sem_seg_file_name" not in record


def test_cityscapes_masks_that_are_missing_or_something_else_are_named(tmp_path):
    make_cityscapes(tmp_path)
    (tmp_path / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png").unlink()
    write(tmp_path / "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png", [[40]])
    problems = prepare("cityscapes", tmp_path).problems
    assert "ulm_000000_000019_gtFine_labelIds.png: cannot be read" in problems[0]
    assert "lindau_000000_000019_gtFine_labelIds.png: holds the id 40" in problems[1]


def box(x0, y0, x1, y1):
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def make_coco(root, *more):
    crowd = np.zeros((20, 30), dtype=np.uint8, order="F")
    crowd[:, :12] = 1
    rle = coco_mask.encode(crowd)
    objects = [
        {"image_id": 7, "category_id": 47, "segmentation": box(4, 4, 8, 8)},  # a cup on a person, listed first
        {"image_id": 7, "category_id": 1, "segmentation": box(2, 2, 20, 18)},
        {
            "image_id": 7,
            "category_id": 90,
            "segmentation": {"size": [20, 30], "counts": rle["counts"].decode()},
            "iscrowd": 1,
        },
        *more,
    ]
    for i, annotation in enumerate(objects):
        annotation.update(id=i + 1, area=1, bbox=[0, 0, 1, 1], iscrowd=annotation.get("iscrowd", 0))
    for part, ids in (("train", (7, 8)), ("val", (9,))):
        images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": 20, "width": 30} for i in ids]
        for entry in images:
            image(root / f"{part}2017" / entry["file_name"], 20, 30)
        (root / "annotations").mkdir(exist_ok=True)
        own = [annotation for annotation in objects if annotation["image_id"] in ids]
        content = {"images": images, "annotations": own, "categories": []}
        (root / f"annotations/instances_{part}2017.json").write_text(json.dumps(content))


def test_coco_objects_are_drawn_from_large_to_small_over_crowds(tmp_path):
    make_coco(tmp_path)
    done = prepare("coco", tmp_path)
    assert (done.masks, done.problems) == ({"train": (2, 0), "val": (1, 0)}, [])
    mask = read_mask(tmp_path / "masks/000000000007.png")
    assert [mask[y, x] for y, x in ((6, 6), (10, 10), (10, 16), (0, 0), (19, 29))] == [42, 1, 1, 80, 0]
    assert read_mask(tmp_path / "masks/000000000008.png").max() == 0
    assert (tmp_path / "splits/train.txt").read_text() == "000000000007\n000000000008\n"
    assert (tmp_path / "splits/val.txt").read_text() == "val2017/000000000009.jpg masks/000000000009.png\n"


def test_wrong_coco_annotations_are_named(tmp_path):
    make_coco(tmp_path, {"image_id": 8, "category_id": 12, "segmentation": box(1, 1, 5, 5)})
    (problem,) = prepare("coco", tmp_path).problems
    assert problem.startswith("image 8: has a broken annotation (KeyError(12))")
    (tmp_path / "annotations/instances_val2017.json").write_text("{")
    assert any("instances_val2017.json: is not a COCO annotation file" in p for p in prepare("coco", tmp_path).problems)


def test_real_coco_annotations(shared, tmp_path):
    for name in ("annotations", "train2017"):
        os.symlink(shared / "coco128" / name, tmp_path / name)
    done = prepare("coco", tmp_path)
    assert done.masks == {"train": (128, 0)}
    api = CocoApi(tmp_path / "annotations/instances_train2017.json")
    order = sorted(api.cats)
    for image_id in sorted(api.imgs)[:40]:
        annotations = api.imgToAnns[image_id]
        mask = read_mask(tmp_path / f"masks/{image_id:012d}.png")
        covered = np.zeros(mask.shape, dtype=bool)
        for annotation in annotations:
            covered |= api.annToMask(annotation).astype(bool)
        assert ((mask > 0) == covered).all()
        assert set(np.unique(mask)) <= {0, *(order.index(a["category_id"]) + 1 for a in annotations)}
        for annotation in annotations:
            if len(annotations) == 1:
                assert (mask[covered] == order.index(annotation["category_id"]) + 1).all()


def test_ade20ks_classes_begin_with_0_and_what_is_of_none_is_255(tmp_path):
    for part, key in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        image(tmp_path / f"images/{part}/{key}.jpg")
        write(tmp_path / f"annotations/{part}/{key}.png", [[0, 1, 2, 149, 150, 150]] * 4)
    image(tmp_path / "images/training/ADE_train_00000002.jpg")
    write(tmp_path / "annotations/training/ADE_train_00000002.png", filled(151))
    done = prepare("ade20k", tmp_path)
    (problem,) = done.problems
    assert "ADE_train_00000002.png: holds the id 151, no class; unpack ADEChallengeData2016.zip again" in problem
    assert done.masks == {"train": (1, 0), "val": (1, 0)}
    description = load_description(BENCHMARKS["ade20k"].description, tmp_path)
    for name in ("train", "val"):
        record = description.records(name)[0]
        assert read_mask(record["sem_seg_file_name"])[0].tolist() == [255, 0, 1, 148, 149, 149]
    assert (tmp_path / "splits/train.txt").read_text().split() == [
        f"training/ADE_train_0000000{number}" for number in (1, 2)
    ]
