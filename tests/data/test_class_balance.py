"""Class weights of the labeled loss, and labeled images drawn by class."""

import numpy as np
import pytest
import torch
from helpers import SMALL
from PIL import Image

from wpl_d2.data.class_weights import balance_classes, build_class_weights
from wpl_d2.data.loader import build_labeled_loader, labeled_dataset
from wpl_d2.data.sampler import ClassBalancedDataset
from wpl_d2.engine import Trainer
from wpl_d2.engine.trainer import build_training_framework
from wpl_d2.losses import cross_entropy
from wpl_d2.structures import IGNORE
from wpl_d2.utils.errors import InputError

# Of three masks of 100 pixels: the pixels of three classes, of which no mask shows the last one, and of none.
COUNTS = np.array([[90, 10, 0, 0], [80, 0, 0, 20], [100, 0, 0, 0]])


def test_inverse_weights_make_all_classes_weigh_the_same():
    weights = balance_classes(COUNTS, "inverse")
    sizes = COUNTS[:, :-1].sum(axis=0)
    assert weights[2] == 1
    assert (weights * sizes)[0] == pytest.approx((weights * sizes)[1])
    assert (weights * sizes).sum() / sizes.sum() == pytest.approx(1)


def test_median_weights_compare_shares_of_the_images_that_show_a_class():
    frequencies = [270 / 300, 10 / 100]
    expected = [np.median(frequencies) / frequency for frequency in frequencies]
    assert balance_classes(COUNTS, "median").tolist() == pytest.approx([*expected, 1])


def test_the_weights_of_a_data_set(tree):
    cfg = tree.cfg("FRAMEWORK.CLASS_WEIGHTS.KIND", "inverse")
    sizes = np.zeros(3)
    for name in ("labeled0", "labeled1", "labeled2"):
        mask = np.array(Image.open(tree.mask(name)))
        sizes += [(mask == kind).sum() for kind in range(3)]
    assert build_class_weights(cfg) == pytest.approx(list(sizes.sum() / 3 / sizes))
    assert build_class_weights(tree.cfg()) is None
    given = tree.cfg("FRAMEWORK.CLASS_WEIGHTS.KIND", "list", "FRAMEWORK.CLASS_WEIGHTS.VALUES", (1, 2.5, 0))
    assert build_class_weights(given) == [1, 2.5, 0]
    given.FRAMEWORK.CLASS_WEIGHTS.VALUES = (1.0, 2.0)
    with pytest.raises(InputError, match=r"^FRAMEWORK\.CLASS_WEIGHTS\.VALUES: 2 weights for 3 classes; give one"):
        build_class_weights(given)


def test_the_labeled_losses_are_weighted_by_class(tree):
    opts = [*SMALL, "MODEL.AUX_HEAD.ENABLED", True, "FRAMEWORK.CLASS_WEIGHTS.VALUES", (1.0, 3.0, 0.5)]
    batch = next(iter(build_labeled_loader(tree.cfg(*opts))))
    terms = {}
    for kind in ("none", "list"):
        torch.manual_seed(0)
        framework = build_training_framework(tree.cfg(*opts, "FRAMEWORK.CLASS_WEIGHTS.KIND", kind))
        terms[kind] = framework.terms({"labeled": batch, "unlabeled": [], "partners": []})[0]
    assert [term.name for term in terms["list"]] == ["loss_sem_seg", "loss_aux"]
    for weighted, plain in zip(terms["list"], terms["none"], strict=True):
        target = weighted.target
        factors = torch.tensor([1.0, 3.0, 0.5])[target.masked_fill(target == IGNORE, 0)]
        expected = factors * cross_entropy(weighted.logits, target)
        torch.testing.assert_close(weighted.pixel_loss(weighted.logits, target), expected)
        assert torch.equal(weighted.norm, plain.norm)


def test_a_weighted_training_of_balanced_images(tree, tmp_path):
    opts = ["FRAMEWORK.CLASS_WEIGHTS.KIND", "median", "DATALOADER.CLASS_BALANCED", True]
    cfg = tree.cfg(*SMALL, *opts, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", str(tmp_path / "out"))
    trainer = Trainer(cfg)
    trainer.train()
    assert "class_weights" not in trainer.framework.state_dict()
    assert isinstance(labeled_dataset(cfg), ClassBalancedDataset)


def balanced(shown, seed=0, **others):
    records = [{"number": number} for number in range(len(shown))]
    return ClassBalancedDataset(records, dict, seed, "labeled", shown=np.array(shown, dtype=bool), **others)


def test_all_classes_are_drawn_alike_and_of_each_all_images():
    shown = [[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]  # nothing shows the last class
    dataset = balanced(shown)
    drawn = np.bincount([dataset[counter]["number"] for counter in range(3000)], minlength=5) / 3000
    assert drawn == pytest.approx([1 / 9, 1 / 9, 4 / 9, 1 / 3, 0], abs=0.03)


def test_a_draw_is_a_function_of_seed_and_counter():
    shown = np.eye(6)
    first, second, other = balanced(shown), balanced(shown), balanced(shown, seed=1)
    order = [first[counter]["number"] for counter in range(50)]
    assert [second[counter]["number"] for counter in reversed(range(50))] == order[::-1]
    assert [other[counter]["number"] for counter in range(50)] != order


def test_images_that_are_held_out_come_late():
    dataset = balanced([[1, 0], [1, 0], [0, 1]], held_out=(0,), until=200)
    drawn = [dataset[counter]["number"] for counter in range(400)]
    assert set(drawn[:200]) == {1, 2} and set(drawn[200:]) == {0, 1, 2}
