"""Stored pseudo-labels: files by image, and what a view makes of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wpl_d2.data import build_train_loader
from wpl_d2.data.loader import unlabeled_records, unlabeled_source
from wpl_d2.data.pseudo_label_store import PseudoLabelStore
from wpl_d2.structures import IGNORE
from wpl_d2.utils.errors import InputError

SIZE = (50, 60)


@pytest.fixture
def store(tmp_path):
    return PseudoLabelStore(tmp_path / "run" / "labels_1", num_classes=3)


def cfg_with_labels(tree, tmp_path, *opts):
    return tree.cfg("OUTPUT_DIR", str(tmp_path / "run"), "DATASETS.PSEUDO_LABELS", ("labels_1",), *opts)


def test_labels_and_weights_come_back_exactly(store):
    rng = np.random.default_rng(0)
    labels, shared = rng.integers(0, 3, SIZE), rng.integers(0, 6, SIZE)
    weight = torch.from_numpy(shared).float() / 5
    # Ids that are paths, and ids that a simple replacement would make equal.
    records = [{"image_id": name, "file_name": f"{name}.jpg"} for name in ("a/b", "a%2Fb", "..", "a b")]
    for number, record in enumerate(records):
        assert record not in store
        store.write(record, (labels + number) % 3, weight.numpy() if number else None)
    for number, record in enumerate(records):
        assert record in store
        found, found_weight = store.read(record, SIZE)
        assert np.array_equal(found, (labels + number) % 3)
        expected = weight.numpy() if number else np.ones(SIZE)
        assert np.array_equal(found_weight, expected) and found_weight.dtype == np.float32
    assert all(path.parent.parent == store.folder for path in store.folder.rglob("*.png"))


def test_labels_that_do_not_fit_are_named(store):
    record = {"image_id": "a", "file_name": "a.jpg"}
    store.write(record, np.full(SIZE, 3))
    with pytest.raises(InputError, match=r"labels/a.png: holds the ids \[3\], but there are 3 classes"):
        store.read(record, SIZE)
    with pytest.raises(InputError, match=r"labels/a.png: is 60x50 but its image a.jpg is 61x50"):
        store.read(record, (50, 61))


def test_a_view_moves_labels_and_weights_with_the_image(tree, tmp_path, store):
    """Red is the label, and green the weight; no mask can be read."""
    cfg = cfg_with_labels(tree, tmp_path, "INPUT.RESIZE", "bilinear", "INPUT.SCALE_RANGE", (1.0, 1.0))
    rng = np.random.default_rng(0)
    for record in unlabeled_records(cfg)[:3]:
        labels, shared = rng.integers(0, 3, SIZE), rng.integers(0, 6, SIZE)
        picture = np.stack([40 * labels, 40 * shared, 0 * labels], axis=2).astype(np.uint8)
        Image.fromarray(picture).save(record["file_name"])
        tree.mask(record["image_id"]).write_bytes(b"")
        store.write(record, labels, shared / 5)
    seen = set()
    loader = build_train_loader(cfg)
    for _ in range(3):
        for item in next(loader)["unlabeled"]:
            seen.add(item["image_id"])
            valid = item["valid"]
            assert torch.equal(item["pseudo_labels"][valid], item["image"][0][valid].long() // 40)
            assert torch.equal(item["pseudo_weight"][valid], item["image"][1][valid].float() / 200)
            assert (item["pseudo_labels"][~valid] == IGNORE).all()
    assert seen == {"unlabeled0", "unlabeled1", "unlabeled2"}  # the others have no labels


def test_missing_stores_are_named(tree, tmp_path):
    with pytest.raises(InputError, match=r"DATASETS.PSEUDO_LABELS: .*run/labels_1 holds no pseudo-labels"):
        unlabeled_source(cfg_with_labels(tree, tmp_path))


def test_an_absolute_folder_is_taken_as_it_is(tree, tmp_path, store):
    cfg = cfg_with_labels(tree, tmp_path, "OUTPUT_DIR", "elsewhere", "DATASETS.PSEUDO_LABELS", (str(store.folder),))
    store.write(unlabeled_records(cfg)[4], np.zeros(SIZE))
    assert [Path(record["file_name"]).stem for record in unlabeled_source(cfg)[0]] == ["unlabeled4"]
