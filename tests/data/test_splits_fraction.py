from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from wpl_d2.data import load_description
from wpl_d2.data.preparation import BENCHMARKS, new_split, parse_fraction
from wpl_d2.data.preparation.fraction import choose_balanced, choose_showing, shuffle_by_hash
from wpl_d2.data.preparation.splits import read_list_keys

VOC = BENCHMARKS["voc"]
KEYS = [f"2007_{i:06d}" for i in range(40)]


@pytest.fixture
def root(tmp_path):
    """40 images, all with masks, the last of them the only one with class 9."""
    (tmp_path / "SegmentationClass").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/train.txt").write_text("\n".join(KEYS))
    for key in KEYS:
        mask = np.array([[0, 255, 9 if key == KEYS[-1] else 1]], dtype=np.uint8)
        Image.fromarray(mask).save(tmp_path / f"SegmentationClass/{key}.png")
        (tmp_path / f"JPEGImages/{key}.jpg").touch()
    return tmp_path


def make(root, fraction="1/13", seed=0, balanced=False):
    name = new_split(VOC, load_description(VOC.description, root), parse_fraction(fraction), seed, balanced, 1)
    return name, *(read_list_keys(VOC, root, f"{name}_{kind}") for kind in ("labeled", "unlabeled"))


def test_a_new_split_is_a_partition_of_the_published_proportions(root):
    name, labeled, unlabeled = make(root)
    assert name == "1_13_seed0"
    assert len(labeled) == 4  # 40 / 13 rounded up, as 10582 / 16 is 662 in the published splits
    assert not labeled & unlabeled
    assert labeled | unlabeled == set(KEYS)
    assert "1_13_seed0_labeled" in load_description(VOC.description, root).lists


def test_the_choice_is_the_same_for_ever_and_nested(root):
    assert shuffle_by_hash(["a", "b", "c", "d", "e"], 0) == ["e", "b", "a", "c", "d"]
    assert shuffle_by_hash(["c", "e"], 0) == ["e", "c"]
    assert make(root)[1:] == make(root)[1:]
    assert make(root)[1] < make(root, "1/4")[1]
    assert make(root)[1] != make(root, seed=1)[1]


@pytest.mark.parametrize("absent", ["SegmentationClass/{}.png", "JPEGImages/{}.jpg"])
def test_only_images_with_masks_are_labeled(root, absent):
    for key in KEYS[2:]:
        (root / absent.format(key)).unlink()
    assert make(root, "1/20")[1] == set(KEYS[:2])
    with pytest.raises(ValueError, match="1/10 of 40 images is 4, but 2 are there with masks"):
        make(root, "1/10")


def test_an_existing_split_with_other_images_is_not_overwritten(root):
    (root / "splits/1_13_seed0_labeled.txt").write_text("2007_000001\n2010_000001\n")
    with pytest.raises(ValueError, match=r"1_13_seed0_labeled\.txt: has 2 images"):
        make(root)


def test_a_split_of_fewer_images_stays_whole(root):
    """The data set grew: the labeled list would be a larger one, but the unlabeled one has images of it."""
    name, labeled, unlabeled = make(root)
    grown = [*KEYS, *(f"2008_{i:06d}" for i in range(20))]
    (root / "splits/train.txt").write_text("\n".join(grown))
    with pytest.raises(ValueError, match=r"1_13_seed0_unlabeled\.txt: has 36 images, and not just those of the 55"):
        make(root)
    assert [read_list_keys(VOC, root, f"{name}_{kind}") for kind in ("labeled", "unlabeled")] == [labeled, unlabeled]


def test_a_balanced_split_shows_the_rare_class(root):
    name, labeled, _ = make(root, "1/20", balanced=True)
    assert name == "1_20_balanced_seed0"
    assert KEYS[-1] in labeled
    assert len(labeled) == 2


def test_balanced_choice_evens_out_the_classes():
    classes = {f"a{i:02d}": frozenset({0, 1}) for i in range(90)} | {f"b{i}": frozenset({0, 2}) for i in range(6)}
    classes |= {f"c{i}": frozenset({3}) for i in range(2)}
    chosen = choose_balanced(classes, 12, seed=0)
    assert sorted(key[0] for key in chosen) == ["a"] * 5 + ["b"] * 5 + ["c"] * 2
    assert choose_balanced(classes, 12, seed=1) != chosen
    everything = choose_balanced({**classes, "empty": frozenset()}, 99, seed=0)
    assert len(everything) == len(set(everything)) == 99


@pytest.mark.parametrize(
    ("count", "share", "least"), [(20, "1/10", 2), (21, "1/10", 3), (20, "1/4", 5), (40, "1/4", 10), (20, "1/100", 1)]
)
def test_a_random_choice_shows_what_it_must(count, share, least):
    """Class 1 is in a quarter of the images, class 2 in every eighth, class 3 in none."""
    classes = {f"{i:02d}": frozenset({0} | {c for c, every in ((1, 4), (2, 8)) if i % every == 0}) for i in range(80)}
    wanted = (0, 1) if least > 4 else (0, 1, 2)
    choices = {seed: choose_showing(classes, count, seed, wanted, Fraction(share)) for seed in range(20)}
    for seed, chosen in choices.items():
        assert len(chosen) == len(set(chosen)) == count
        assert min(sum(c in classes[key] for key in chosen) for c in wanted) >= least
        assert chosen == choose_showing(classes, count, seed, wanted, Fraction(share))
    assert len({frozenset(chosen) for chosen in choices.values()}) == 20
    # Nothing but the condition is asked for: without one it is the first random order.
    assert choose_showing(classes, count, 3, wanted, Fraction(0)) == shuffle_by_hash(classes, "3.0")[:count]
    with pytest.raises(ValueError, match=rf"--fraction: in none of 1000 draws of {count} images {share} of them show"):
        choose_showing(classes, count, 0, (3,), Fraction(share))


@pytest.mark.parametrize("text", ["0", "1", "3/2", "a", "1/0", "-1/2"])
def test_wrong_fractions_are_refused(text):
    with pytest.raises(ValueError, match=r"--fraction: .* give one such as 1/20"):
        parse_fraction(text)


def test_a_decimal_is_a_fraction():
    assert parse_fraction("0.05") == Fraction(1, 20)
