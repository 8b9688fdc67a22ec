import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from wpl_d2 import get_cfg
from wpl_d2.data import check_training_data, load_description
from wpl_d2.data.dataset_report import report_dataset
from wpl_d2.structures import Detections
from wpl_d2.visualization.training_views import draw_unlabeled

EVALUATED = ("TEST.EVAL_PERIOD", 1)
TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run_tool(name, *arguments):
    """Run a tool in this process; returns its exit status."""
    argv, sys.argv = sys.argv, [name, *map(str, arguments)]
    try:
        runpy.run_path(str(TOOLS / name), run_name="__main__")
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = argv
    return 0


def problems(tree, **changes):
    return report_dataset(load_description(tree.describe(**changes)), 90).problems


def add_to(tree, list_name, line):
    file = tree.root / f"{list_name}.txt"
    file.write_text(f"{file.read_text()}\n{line}\n")


def test_good_data_pass(tree, caplog):
    check_training_data(tree.cfg())
    assert not caplog.records
    assert problems(tree) == []


def test_unlabeled_images_need_no_masks(tree):
    for i in range(5):
        tree.mask(f"unlabeled{i}").unlink()
    check_training_data(tree.cfg())
    assert problems(tree) == []


def test_extra_images_need_no_masks(tree):
    (tree.root / "extra.txt").write_text("unlabeled0\nunlabeled1")
    tree.mask("unlabeled0").unlink()
    assert problems(tree, lists=LISTS | {"extra": "extra.txt"}) == []
    (problem,) = problems(tree, lists=LISTS | {"more": "extra.txt"})
    assert "unlabeled0.png: is in the list 'more', but has no" in problem


@pytest.mark.slow
@pytest.mark.parametrize(("name", "images", "masks"), [("voc_animals", 3608, 3576), ("nyuv2", 1449, 1449)])
def test_real_data_are_as_they_are_described(shared, name, images, masks):
    root = shared / name
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    description = load_description(f"configs/datasets/{name}.yaml", root)
    assert list(description.classes) == (root / "classes.txt").read_text().split()
    assert set(description.lists.values()) == {f"splits/{file.name}" for file in (root / "splits").iterdir()}
    found = report_dataset(description, 90)
    assert found.problems == []
    assert len(found.pixels) == masks
    assert len({record["file_name"] for records in found.lists.values() for record in records}) == images


@pytest.mark.parametrize(
    ("list_name", "line", "message"),
    [
        ("unlabeled", "labeled1", r"labeled1\.png: is both labeled and unlabeled; make"),
        ("val", "labeled1", r"labeled1\.png: is trained and tested on"),
        ("val", "unlabeled1", r"unlabeled1\.png: is trained and tested on"),
        ("labeled", "nowhere", r"nowhere\.png: is in DATASETS\.TRAIN, but missing; restore"),
        ("unlabeled", "nowhere", r"nowhere\.png: is in DATASETS\.UNLABELED, but missing; restore"),
    ],
)
def test_wrong_lists_are_refused(tree, list_name, line, message):
    add_to(tree, list_name, line)
    with pytest.raises(ValueError, match=message):
        check_training_data(tree.cfg())
    assert problems(tree)


def test_the_number_of_shared_images_is_told(tree):
    add_to(tree, "val", "labeled1\nlabeled2")
    with pytest.raises(ValueError, match=r"labeled1\.png: is trained and tested on, and so are 1 more; make"):
        check_training_data(tree.cfg())


LISTS = {"labeled": "labeled.txt", "unlabeled": "unlabeled.txt", "val": "val.txt"}


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"dev": "labeled0"}, ["labeled0.png: is in both the lists 'dev' and 'labeled'"]),
        ({"own_dev": "unlabeled0"}, ["unlabeled0.png: is in both the lists 'own_dev' and 'unlabeled'"]),
        ({"dev": "val0"}, ["val0.png: is in both the lists 'dev' and 'val'"]),
        ({"small_val": "val0"}, []),
        ({"Validation": "labeled0"}, ["labeled0.png: is in both the lists 'Validation' and 'labeled'"]),
        ({"eval_1": "unlabeled0"}, ["unlabeled0.png: is in both the lists 'eval_1' and 'unlabeled'"]),
        (
            {"train": "labeled0\nunlabeled1"},
            ["unlabeled1.png: is in both the lists 'train' and 'unlabeled', which holds 4"],
        ),
        ({"train": "\n".join(["labeled0", *(f"unlabeled{i}" for i in range(5))])}, []),
        ({"train": "labeled0"}, []),
        (
            {"train": "labeled0\nlabeled1\nunlabeled1", "extra": "unlabeled0\nunlabeled2\nunlabeled3\nunlabeled4"},
            [],
        ),
        ({"Train": "labeled0\nunlabeled1", "Extra": "unlabeled0\nunlabeled2\nunlabeled3\nunlabeled4"}, []),
        ({"train": "labeled0", "extra": "unlabeled0"}, []),
        (
            {"train": "labeled0\nunlabeled1", "extra": "unlabeled0\nunlabeled2"},
            ["unlabeled1.png: is in both the lists 'train' and 'unlabeled', which holds 2"],
        ),
        ({"extra": "val0"}, ["val0.png: is in both the lists 'val' and 'extra'"]),
    ],
)
def test_lists_that_share_images_are_problems_unless_one_is_the_union(tree, more, found):
    for name, lines in more.items():
        (tree.root / f"{name}.txt").write_text(lines)
    told = problems(tree, lists=LISTS | {name: f"{name}.txt" for name in more})
    assert len(told) == len(found)
    assert all(text in problem for text, problem in zip(found, told, strict=True))


def test_a_mask_without_a_labeled_pixel_is_a_problem(tree):
    tree.write_mask("labeled1", np.full((50, 60), 255, dtype=np.uint8))
    (problem,) = problems(tree)
    assert problem == f"{tree.mask('labeled1')}: labels no pixel; draw it, or take its image out of the list 'labeled'"


@pytest.mark.parametrize("form", ["val0.png", "./images/val0.png", "/images/val0.png", "{root}/images/val0.png"])
def test_an_image_is_found_by_its_file_name_and_by_any_path(tree, form):
    (tree.root / "val.txt").write_text(form.format(root=tree.root))
    check_training_data(tree.cfg())
    (record,) = load_description(tree.yaml).records("val")
    assert record["file_name"] == str(tree.image("val0"))
    assert record["sem_seg_file_name"] == str(tree.mask("val0"))


def test_an_id_with_a_space_is_told_and_taken_before_a_tab(tree):
    os.symlink(tree.image("labeled0"), tree.image("im 11"))
    text = (tree.root / "unlabeled.txt").read_text()
    add_to(tree, "unlabeled", "im 11")
    with pytest.raises(
        ValueError, match=r"unlabeled\.txt, line 6: 'im 11' is not an image 'im' and its mask '11'; write a"
    ):
        check_training_data(tree.cfg())
    (tree.root / "unlabeled.txt").write_text(f"{text}\nim 11\t\n")
    with pytest.raises(ValueError, match=r"images/im 11\.png: is both labeled and unlabeled"):
        check_training_data(tree.cfg())


def test_the_same_image_under_another_name_is_found(tree):
    os.symlink(tree.image("labeled0"), tree.image("twin"))
    add_to(tree, "unlabeled", "twin")
    with pytest.raises(ValueError, match="twin"):
        check_training_data(tree.cfg())


@pytest.mark.parametrize("list_name", ["labeled", "unlabeled", "val"])
def test_empty_lists_are_refused(tree, list_name):
    (tree.root / f"{list_name}.txt").write_text("\n")
    with pytest.raises(ValueError, match=rf"the list '{tree.name}_{list_name}' is empty; name one"):
        check_training_data(tree.cfg())
    assert any("is empty" in problem for problem in problems(tree))


def test_a_labeled_list_must_be_named(tree):
    with pytest.raises(ValueError, match="TRAIN: names no list"):
        check_training_data(tree.cfg("DATASETS.TRAIN", "()"))


@pytest.mark.parametrize(("name", "key"), [("labeled2", "TRAIN"), ("val1", "TEST")])
def test_missing_masks_are_named(tree, name, key):
    tree.mask(name).unlink()
    message = rf"{name}\.png: is in DATASETS\.{key}, but has no .*masks/{name}\.png; add"
    with pytest.raises(ValueError, match=message):
        check_training_data(tree.cfg(*EVALUATED))
    assert [f"has no {tree.mask(name)}" in problem for problem in problems(tree)] == [True]


def test_an_image_whose_path_does_not_lead_to_a_mask_is_told_so(tree):
    os.symlink(tree.root / "images", tree.root / "elsewhere")
    (tree.root / "labeled.txt").write_text("elsewhere/labeled0.png")
    with pytest.raises(ValueError, match=r"labeled0\.png: is in DATASETS\.TRAIN, but nothing says where its mask is"):
        check_training_data(tree.cfg())


@pytest.mark.parametrize("keys", [(), (*EVALUATED, "TEST.EVALUATOR", "submission")])
def test_test_images_need_masks_only_where_they_are_measured_on(tree, keys):
    tree.mask("val1").unlink()
    check_training_data(tree.cfg(*keys))


def test_wrong_masks_to_measure_on_are_refused_before_the_first_step(tree):
    wrong = np.full((50, 60), 9, dtype=np.uint8)
    tree.write_mask("unlabeled3", wrong)
    check_training_data(tree.cfg(*EVALUATED))
    judged = ("TEST.PSEUDO_LABELS", (f"{tree.name}_unlabeled",))
    with pytest.raises(ValueError, match=r"unlabeled3\.png: holds the ids \[9\]"):
        check_training_data(tree.cfg(*EVALUATED, *judged))
    tree.mask("unlabeled3").unlink()
    with pytest.raises(ValueError, match=r"unlabeled3\.png: is in TEST\.PSEUDO_LABELS, but has no"):
        check_training_data(tree.cfg(*EVALUATED, *judged))
    tree.write_mask("val1", wrong)
    with pytest.raises(ValueError, match=r"val1\.png: holds the ids \[9\]"):
        check_training_data(tree.cfg(*EVALUATED))
    check_training_data(tree.cfg(*judged))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((50, 60), 9, dtype=np.uint8), r"labeled1\.png: holds the ids \[9\]"),
        (np.zeros((50, 60, 3), dtype=np.uint8), r"labeled1\.png: is an RGB image"),
        (np.zeros((60, 50), dtype=np.uint8), r"labeled1\.png: is 50x60 but its image .*may be turned by its EXIF"),
        (np.zeros((60, 51), dtype=np.uint8), r"labeled1\.png: is 51x60 but its image .*; make them equal$"),
    ],
)
def test_wrong_masks_are_refused(tree, mask, message):
    tree.write_mask("labeled1", mask)
    with pytest.raises(ValueError, match=message):
        check_training_data(tree.cfg())
    (problem,) = problems(tree)
    assert "labeled1.png" in problem


def test_many_problems_are_cut_short(tree):
    for i in range(8):
        add_to(tree, "unlabeled", f"nowhere{i}")
    with pytest.raises(ValueError, match=r"\.\.\. and 3 more$"):
        check_training_data(tree.cfg())


def test_a_class_without_pixels_is_a_warning_before_training_and_a_problem_in_the_full_check(tree, caplog):
    for i in range(3):
        tree.write_mask(f"labeled{i}", np.ones((50, 60), dtype=np.uint8) * (i % 2))
    check_training_data(tree.cfg())
    assert f"{tree.name}_labeled: no pixel is labeled 'ball'" in caplog.text
    (problem,) = problems(tree)
    assert problem == f"{tree.root / 'labeled.txt'}: no pixel is labeled 'ball'; choose images that show it"


def test_a_palette_in_the_wrong_order_is_a_problem(tree):
    colors = [[0, 0, 0], [200, 0, 0], [0, 200, 0]]
    for order, count in (([0, 1, 2], 0), ([0, 2, 1], 1)):
        mask = Image.fromarray(np.asarray(Image.open(tree.mask("val0"))), mode="P")
        mask.putpalette(np.array(colors)[order].flatten().tolist() + [0] * (3 * 253))
        mask.save(tree.mask("val0"))
        found = problems(tree, colors=colors)
        assert len(found) == count
    assert "its palette shows the id 1, 'box', in the color of 'ball'" in found[0]


def test_palettes_that_differ_are_a_problem(tree):
    for name, colors in (("labeled0", [0, 0, 0, 200, 0, 0, 0, 200, 0]), ("val0", [0, 0, 0, 0, 0, 200, 0, 200, 0])):
        mask = Image.fromarray(np.asarray(Image.open(tree.mask(name))), mode="P")
        mask.putpalette(colors + [0] * (3 * 253))
        mask.save(tree.mask(name))
    (found,) = problems(tree)
    assert found.startswith(f"{tree.mask('val0')}: its palette shows the id 1, 'box', in another color than that of")
    assert str(tree.mask("labeled0")) in found


def test_both_masks_of_an_image_are_read(tree):
    wrong = tree.root / "masks/wrong.png"
    Image.fromarray(np.full((50, 60), 9, dtype=np.uint8)).save(wrong)
    (tree.root / "labeled.txt").write_text("images/labeled0.png masks/wrong.png\nlabeled1\nlabeled2")
    (tree.root / "train.txt").write_text("labeled0")
    found = problems(tree, lists=LISTS | {"train": "train.txt"})
    assert [problem.startswith(f"{wrong}: holds the ids [9]") for problem in found] == [True]


def test_broken_images_and_repeated_or_missing_lists_are_problems(tree):
    tree.image("unlabeled0").write_bytes(b"broken")
    add_to(tree, "val", "val0")
    found = problems(tree, lists={"labeled": "l.txt", "unlabeled": "unlabeled.txt", "val": "val.txt"})
    assert len(found) == 3
    assert any("unlabeled0.png: cannot be read" in problem for problem in found)
    assert any("more than once" in problem for problem in found)
    assert any("l.txt: the list 'labeled'" in problem for problem in found)


def test_the_tool_prints_tables_and_fails_on_problems(tree, capsys):
    assert run_tool("check_dataset.py", tree.yaml) == 0
    printed = capsys.readouterr().out
    assert "0 problems" in printed
    (row,) = [line.split() for line in printed.splitlines() if " ball " in line]
    # 10 masks: 3 labeled, 5 unlabeled and 2 val ones, 15 rows of 15 + i pixels in each.
    pixels = 15 * (10 * 15 + (0 + 1 + 2) + (0 + 1 + 2 + 3 + 4) + (0 + 1))
    assert float(row[2]) == pytest.approx(100 * pixels / (10 * 47 * 60), rel=1e-3)
    assert row[3:] == ["10", "10", "15", "15", "15"]
    add_to(tree, "unlabeled", "labeled0")
    assert run_tool("check_dataset.py", tree.yaml) == 1
    assert "in both the lists 'labeled' and 'unlabeled'" in capsys.readouterr().out
    assert run_tool("check_dataset.py", tree.root / "none.yaml") == 2


def test_the_pictures_of_the_data_are_drawn(tree):
    config = tree.root / "config.yaml"
    config.write_text(
        f"VERSION: 2\nDATASETS:\n  DESCRIPTION: {tree.yaml}\n  TRAIN: ('{tree.name}_labeled',)\n"
        f"  UNLABELED: ('{tree.name}_unlabeled',)\nMODEL:\n  DETECTOR:\n    MODE: shared\n"
    )
    output = tree.root / "out"
    size = ("INPUT.CROP_SIZE", "(64, 96)", "INPUT.STRONG.VIEWS", "2")
    assert run_tool("visualize_data.py", "--config-file", config, "--output", output, "--num", 1, *size) == 0
    # Image, mask, boxes, valid; weak, two strong, valid, two mixed with theirs.
    whole = Image.open(output / "labeled_0000.png")
    assert whole.width > 4 * 96 and whole.height > 64 + 4 * 20
    assert Image.open(output / "unlabeled_0000.png").width > 8 * 96
    paste = ("INPUT.PASTE.PROB", "1.0", "MODEL.DETECTOR.MODE", "none")
    assert run_tool("visualize_data.py", "--config-file", config, "--output", output, "--num", 1, *size, *paste) == 0
    assert Image.open(output / "labeled_0000.png").width > whole.width


def test_the_boxes_of_a_cache_are_drawn_where_the_view_shows_them():
    view = torch.zeros(3, 40, 48, dtype=torch.uint8)
    xyxy = torch.tensor([[10.0, 20.0, 30.0, 38.0], [0.0, 0.0, 48.0, 10.0]])
    found = Detections(xyxy, torch.tensor([0.9, 0.5]), torch.tensor([2, 1]))
    valid = torch.ones(40, 48, dtype=torch.bool)
    sample = {"image": view, "strong": view[None][:0], "valid": valid, "detections": found}
    metadata = SimpleNamespace(stuff_classes=["a", "b", "c"], stuff_colors=[(1, 1, 1), (2, 2, 2), (0, 200, 0)])
    row = draw_unlabeled(sample, sample, get_cfg(), metadata)
    assert list(row) == ["weak view", "boxes", "valid"]
    weak, boxes, valid = map(np.asarray, row.values())
    assert not weak.any() and valid.all()
    assert boxes[37, 20].tolist() == [0, 200, 0]  # the lower edge of the sure box
    assert not boxes[:10, 31:].any()  # nothing of the other
