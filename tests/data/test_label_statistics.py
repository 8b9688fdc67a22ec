"""Masks that fit in form and mean something else: the user is told before a figure fools them."""

import re

import numpy as np
import pytest
from PIL import Image

from wpl_d2.data import check_training_data, load_description
from wpl_d2.data.dataset_report import report_dataset
from wpl_d2.data.label_statistics import LabelStatistics, count_labels
from wpl_d2.utils.errors import InputError

EVALUATED = ("TEST.EVAL_PERIOD", 1)


def statistics(pixels, ignore=255, for_training=True):
    return LabelStatistics("list", np.array(pixels), ["ground", "box", "ball"][: len(pixels) - 1], ignore, for_training)


def draw(tree, stems, make):
    """Write the masks of some lists: make(index) is a mask (50, 60)."""
    for file in sorted((tree.root / "masks").iterdir()):
        if file.stem.startswith(stems):
            tree.write_mask(file.stem, make(int(file.stem[-1])).astype(np.uint8))


def black_and_white(index):
    mask = np.zeros((50, 60))
    mask[: 20 + index] = 255
    return mask


def notes_and_problems(tree, **changes):
    found = report_dataset(load_description(tree.describe(**changes)), 90)
    return found.notes, found.problems


@pytest.mark.parametrize(
    ("classes", "mend"),
    [
        (
            ["ground", "box"],
            r"if 255 is 'box', write `labels: {format: masks, values: {0: ground, 255: box}}` into .*YAML",
        ),
        (
            ["ground", "box", "ball"],
            r"if 255 is a class of yours, write `labels: {format: masks, values: {..., 255: CLASS}}` into .*YAML",
        ),
    ],
)
@pytest.mark.parametrize("verify", [True, False])
def test_masks_of_0_and_255_are_refused(tree, classes, mend, verify):
    draw(tree, ("labeled", "val", "unlabeled"), black_and_white)
    tree.describe(classes=classes, objects=["box"])
    told = r"labeled: its masks hold nothing but 'ground' and 255 = no class \(42 % of the pixels\), so that"
    with pytest.raises(InputError, match=f"{told} there is nothing to tell it from; {mend}$"):
        check_training_data(tree.cfg("DATASETS.VERIFY_FILES", verify))
    _, problems = notes_and_problems(tree, classes=classes, objects=["box"])
    assert re.search(r"labeled\.txt: its masks hold nothing but 'ground' and 255 = no class", problems[0])
    assert re.search(r"val\.txt: its masks hold nothing but 'ground' .*, so that mIoU says nothing; ", problems[1])
    assert len(problems) == 2


def test_what_the_message_says_mends_masks_of_0_and_255(tree):
    draw(tree, ("labeled", "val", "unlabeled"), black_and_white)
    labels = {"format": "masks", "values": {0: "ground", 255: "box"}}
    notes, problems = notes_and_problems(tree, classes=["ground", "box"], objects=["box"], labels=labels)
    assert (notes, problems) == ([], [])


def test_where_labels_say_what_has_no_class_the_message_names_them(tree):
    draw(tree, ("labeled", "val"), black_and_white)
    labels = {"format": "masks", "values": {0: "ground", 1: "box", 2: "ball", 255: "ignore"}}
    _, problems = notes_and_problems(tree, labels=labels)
    assert "hold nothing but 'ground' and no class (42 % of the pixels)" in problems[0]
    assert problems[0].endswith("if it should have one, change 'labels' of the data set's YAML")


def test_another_void_value_does_not_make_a_class_of_255(tree):
    draw(tree, ("labeled", "val"), black_and_white)
    tree.describe(ignore=254)
    with pytest.raises(InputError, match=r"labeled0\.png: holds 255, which is not a class id, and 'ignore' .* is 254"):
        check_training_data(tree.cfg())


@pytest.mark.parametrize("value", [0, 1])
def test_a_single_class_is_refused_with_and_without_void(tree, value):
    draw(tree, "labeled", lambda index: np.full((50, 60), value))
    name = ["ground", "box"][value]
    with pytest.raises(
        InputError, match=rf"nothing but '{name}', so that .*; choose images that show other classes too"
    ):
        check_training_data(tree.cfg())


def test_lists_that_are_learned_from_together_may_have_one_class_each(tree, caplog):
    draw(tree, "labeled", lambda index: np.full((50, 60), index))
    for index in range(3):
        (tree.root / f"l{index}.txt").write_text(f"labeled{index}")
    tree.describe(lists={"unlabeled": "unlabeled.txt", "val": "val.txt", **{f"l{i}": f"l{i}.txt" for i in range(3)}})
    check_training_data(tree.cfg("DATASETS.TRAIN", tuple(f"{tree.name}_l{index}" for index in range(3))))
    assert not caplog.records
    with pytest.raises(InputError, match=rf"{tree.name}_l1: its masks hold nothing but 'box'"):
        check_training_data(tree.cfg("DATASETS.TRAIN", (f"{tree.name}_l1",)))


def test_a_detector_alone_needs_no_second_class(tree):
    draw(tree, "labeled", lambda index: np.pad(np.ones((20, 20)), ((9, 21), (9, 31)), constant_values=255))
    with pytest.raises(InputError, match="nothing but 'box' and 255"):
        check_training_data(tree.cfg())
    check_training_data(tree.cfg("MODEL.DETECTOR.MODE", "alone"))


def test_labeled_masks_without_a_label_are_refused_and_those_to_measure_on_explained(tree, caplog):
    draw(tree, "val", lambda index: np.full((50, 60), 255))
    check_training_data(tree.cfg(*EVALUATED))
    assert f"{tree.name}_val: all of its masks are 255 = no class, so that all metrics are NaN; if 255" in caplog.text
    assert "val.txt: all of its masks are 255 = no class" in notes_and_problems(tree)[1][-1]
    draw(tree, "labeled", lambda index: np.full((50, 60), 255))
    with pytest.raises(
        InputError, match=r"_labeled: all of its masks are 255 = no class, so that nothing can be learned"
    ):
        check_training_data(tree.cfg(*EVALUATED))


def test_one_class_to_measure_on_is_explained(tree, caplog):
    draw(tree, "val", black_and_white)
    check_training_data(tree.cfg(*EVALUATED))
    assert f"{tree.name}_val: its masks hold nothing but 'ground' and 255" in caplog.text
    assert "so that mIoU says nothing" in caplog.text


def half_void(index):
    mask = np.arange(50 * 60).reshape(50, 60) % 3
    mask[:25] = 255
    return mask


def test_a_large_part_without_a_class_is_told(tree, caplog):
    draw(tree, ("labeled", "val"), half_void)
    check_training_data(tree.cfg(*EVALUATED))
    learned, measured = (record.getMessage() for record in caplog.records)
    void = "255 = no class covers 50 % of the pixels"
    assert learned.startswith(f"{tree.name}_labeled: {void}, from which nothing is learned; if 255 is a class of yours")
    assert measured.startswith(f"{tree.name}_val: {void}, on which nothing is measured; if 255")
    notes, problems = notes_and_problems(tree)
    assert problems == []
    assert [note.split("%")[0] for note in notes] == [
        f"{tree.root / name}.txt: 255 = no class covers 50 " for name in ("labeled", "val")
    ]


def test_it_is_told_with_the_files_own_value_from_a_sample_too(tree, caplog):
    draw(tree, ("labeled", "val"), lambda index: np.where(half_void(index) == 255, 7, half_void(index)))
    names = [f"labeled{i}" for i in range(40)]
    for name in names[3:]:
        tree.image(name).symlink_to(tree.image("labeled0"))
        tree.mask(name).symlink_to(tree.mask("labeled0"))
    (tree.root / "labeled.txt").write_text("\n".join(names))
    tree.describe(ignore=7)
    check_training_data(tree.cfg("DATASETS.VERIFY_FILES", False))
    assert f"{tree.name}_labeled (32 of its 40 masks): 7 = no class covers 50 % of the pixels" in caplog.text


def test_classes_that_a_list_to_measure_on_lacks_are_left_out_of_means(tree, caplog):
    draw(tree, "val", lambda index: np.arange(50 * 60).reshape(50, 60) % 2)
    check_training_data(tree.cfg(*EVALUATED))
    assert f"{tree.name}_val: no pixel is labeled 'ball'; means over classes leave it out" in caplog.text
    notes, problems = notes_and_problems(tree)
    assert problems == [] and "no pixel is labeled 'ball'" in notes[0]


def test_an_image_that_is_listed_twice_is_told(tree, caplog):
    (tree.root / "labeled.txt").write_text("labeled0\nlabeled1\nlabeled2\nimages/labeled0.png\nlabeled1")
    check_training_data(tree.cfg())
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{tree.name}_labeled: has 2 images more than once, such as {tree.image('labeled0')}, and each time counts; "
        "remove it if that is not meant"
    )


def test_counts_of_labels():
    mask = np.array([[0, 0, 2], [255, 255, 255]], np.uint8)
    assert count_labels(mask, 3).tolist() == [2, 0, 1, 3]


@pytest.mark.parametrize(
    ("pixels", "void", "fault", "empty"),
    [
        ([5, 5, 5, 0], "", "", ""),
        ([80, 0, 0, 20], "", "nothing but 'ground' and 255 = no class (20 % of", "labeled 'box', 'ball'"),
        ([40, 40, 0, 20], "", "", "labeled 'ball'"),
        ([40, 39, 0, 21], "covers 21 % of", "", "labeled 'ball'"),
        ([0, 0, 0, 9], "covers 100 % of", "all of its masks are 255", "labeled 'ground', 'box', 'ball'"),
        ([0, 0, 0, 0], "", "", ""),
        ([7, 0], "", "nothing but 'ground', so that", ""),
    ],
)
def test_the_limits(pixels, void, fault, empty):
    found = statistics(pixels)
    for text, expected in ((found.void_note(), void), (found.problem(), fault), (found.empty_note(), empty)):
        assert expected in text and bool(expected) == bool(text)


def test_many_empty_classes_are_counted():
    found = LabelStatistics("list", np.array([9] + [0] * 80), [f"c{i}" for i in range(80)], 255, True)
    assert found.empty_note().startswith(
        "list: no pixel is labeled 'c1', 'c2', 'c3', 'c4', 'c5' and 74 more; not learned"
    )


def test_images_of_a_tool_that_writes_one_bit_are_classes(tree):
    for i in range(3):
        Image.fromarray(black_and_white(i) > 0).save(tree.mask(f"labeled{i}"))
    tree.describe(classes=["ground", "box"], objects=["box"])
    check_training_data(tree.cfg())
