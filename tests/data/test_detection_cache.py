import shutil

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from helpers import CLASSES, Tree
from PIL import Image

from wpl_d2.data import UnlabeledMapper, boxes_from_mask, build_train_loader, seeded
from wpl_d2.data.detection_cache import CacheMetadata, DetectionCache
from wpl_d2.data.loader import unlabeled_source
from wpl_d2.data.transforms.geometry import RandomView
from wpl_d2.data.transforms.photometric import JitterView
from wpl_d2.structures import Detections, class_boxes
from wpl_d2.utils.errors import InputError

METADATA = CacheMetadata("digest", tuple(CLASSES), 0.05)


def image_boxes(count, seed=0, size=(50, 60)):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 20, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 25, (count, 2))], axis=1)
    scores, classes = rng.uniform(0.05, 1, count), rng.integers(1, 3, count)
    return size, Detections(torch.tensor(boxes).float(), torch.tensor(scores).float(), torch.tensor(classes))


def assert_same(ours, theirs):
    assert list(ours) == list(theirs)
    for name, (size, found) in ours.items():
        assert size == theirs[name][0]
        assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(found, theirs[name][1], strict=True))


@pytest.mark.parametrize("counts", [[], [0], [0, 3, 0, 2, 0]])
def test_what_is_saved_is_loaded(tmp_path, counts):
    images = {f"folder/{i}": image_boxes(count, i) for i, count in enumerate(counts)}
    DetectionCache.from_images(METADATA, images).save(tmp_path / "new" / "boxes.npz")
    loaded = DetectionCache.load(tmp_path / "new" / "boxes.npz")
    assert loaded.metadata == METADATA
    assert_same(loaded, images)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["boxes.npz"]


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 half", "other arrays", "pickle"])
def test_a_file_that_is_something_else_is_refused(tmp_path, content):
    path = tmp_path / "boxes.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "other arrays":
        np.savez(path, boxes=np.zeros(3))
    elif content == "pickle":
        np.savez(path, origin=np.array([{"run": "me"}], dtype=object))
    with pytest.raises(InputError, match=r"boxes.npz: .*tools/cache_boxes.py"):
        DetectionCache.load(path)


def unlabeled_cache(tree, change=lambda images: images):
    records = DatasetCatalog.get(f"{tree.name}_unlabeled")
    images = {record["image_id"]: image_boxes(4, i) for i, record in enumerate(records)}
    path = tree.root / "boxes.npz"
    DetectionCache.from_images(METADATA, change(images)).save(path)
    return ["MODEL.DETECTOR.MODE", "cached", "MODEL.DETECTOR.CACHE", str(path)]


def test_a_changed_bit_is_found_wherever_it_matters(tmp_path):
    path = tmp_path / "boxes.npz"
    images = {f"image{i}": image_boxes(40, i) for i in range(30)}
    DetectionCache.from_images(METADATA, images).save(path)
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            loaded = DetectionCache.load(path)
        except InputError as error:
            refused += "is not a file of boxes" in str(error)
        else:
            assert_same(loaded, images)
    assert refused > 50


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": np.array([1, -1, 3])},
        {"counts": np.array([1.0, 1.0, 1.0])},
        {"names": np.array(["a", "b", "b"])},
        {"counts": np.array([1, 1])},
        {"scores": np.ones(2, np.float32)},
        {"boxes": np.ones((3, 5), np.float32)},
        {"names": np.array(["a", "b"])},
        {"names": np.array([None] * 3, dtype=object)},
        {"origin": np.array("[1]")},
        {"origin": np.array('{"detector": "d", "classes": 3, "min_score": 0, "version": 1}')},
        {"sizes": np.zeros(3)},
    ],
    ids=str,
)
def test_arrays_that_do_not_go_together_are_refused(tmp_path, changes):
    path = tmp_path / "boxes.npz"
    DetectionCache.from_images(METADATA, {f"image{i}": image_boxes(1, i) for i in range(3)}).save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **{**arrays, **changes})
    with pytest.raises(InputError, match=r"boxes\.npz: is not a file of boxes; make it anew"):
        DetectionCache.load(path)


def samples(cfg):
    records, mapper = unlabeled_source(cfg)
    with seeded(0):
        return [mapper(record) for record in records]


def test_boxes_fit_the_same_images_elsewhere(tree, tmp_path):
    tree.cfg()
    opts = unlabeled_cache(tree)
    found = samples(tree.cfg(*opts))
    shutil.copytree(tree.root, tmp_path / "moved")
    elsewhere = Tree(tmp_path / "moved", f"{tree.name}_moved")
    # The lists name images by their paths there: the same images all the same.
    names = (elsewhere.root / "unlabeled.txt").read_text().split()
    (elsewhere.root / "unlabeled.txt").write_text("\n".join(f"images/{name}.png" for name in names))
    elsewhere.describe()
    moved = samples(elsewhere.cfg(*opts))
    assert all(str(elsewhere.root) in sample["file_name"] for sample in moved)
    for ours, theirs in zip(found, moved, strict=True):
        assert all(map(torch.equal, ours["detections"], theirs["detections"]))
        assert not any("sem_seg" in key for key in theirs)


RPPI = ["RPPI.ENABLED", True]


def scored(score):
    """Gives all boxes of a file one score."""

    def change(images):
        return {key: (size, found._replace(scores=found.scores * 0 + score)) for key, (size, found) in images.items()}

    return change


@pytest.mark.parametrize(
    ("opts", "change", "message"),
    [
        (["MODEL.DETECTOR.CACHE", ""], dict, "MODEL.DETECTOR.CACHE: empty"),
        (["MODEL.DETECTOR.CACHE", "no.npz"], dict, "no.npz: no such file of boxes"),
        (["RPPI.BOX_SCORE", 0.01], dict, "RPPI.BOX_SCORE: 0.01 is below 0.05"),
        ([], lambda images: dict(list(images.items())[2:]), "lacks 2 of 5 images, such as unlabeled0"),
        (
            RPPI,
            scored(0.5),
            "RPPI.BOX_SCORE: 0.85 is reached by none of the 20 .* in .*boxes.npz, whose best .* 0.50; lo",
        ),
        ([*RPPI, "RPPI.BOX_SCORE", 1.0], scored(0.99), "RPPI.BOX_SCORE: 1 is reached by none of the 20 boxes"),
        (
            RPPI,
            lambda images: dict.fromkeys(images, image_boxes(0)),
            "0.85 is reached by none of the 0 .*boxes.npz; low",
        ),
    ],
)
def test_boxes_that_do_not_fit_are_refused_before_training(tree, opts, change, message):
    tree.cfg()
    cfg = tree.cfg(*unlabeled_cache(tree, change), *opts)
    with pytest.raises(InputError, match=message):
        build_train_loader(cfg)


@pytest.mark.parametrize(
    ("opts", "change"),
    [
        (RPPI, scored(0.85)),
        ([*RPPI, "RPPI.BOX_SCORE", 0.95], scored(0.95)),  # which float32 has as less than that
        ([*RPPI, "RPPI.BOX_SCORE", 0.05], lambda images: images),
        ([], scored(0.5)),
    ],
)
def test_one_box_that_reaches_the_score_is_enough_and_without_rppi_none_is_asked_for(tree, opts, change):
    tree.cfg()
    assert len(samples(tree.cfg(*unlabeled_cache(tree, change), *opts))) == 5


def test_boxes_of_other_classes_are_refused(tree):
    tree.cfg()
    opts = unlabeled_cache(tree)
    tree.name += "_renamed"
    tree.describe(classes=["ground", "ball", "box"])
    with pytest.raises(
        InputError, match="has boxes for the classes ground, box, ball, but the data set's are ground, ball"
    ):
        build_train_loader(tree.cfg(*opts))


def test_an_image_of_another_size_is_refused(tree):
    tree.cfg()
    cfg = tree.cfg(*unlabeled_cache(tree, lambda images: {key: image_boxes(1, size=(9, 8)) for key in images}))
    with pytest.raises(InputError, match="is 60x50, but its boxes were found on 8x9"):
        next(build_train_loader(cfg))


def test_boxes_move_with_the_pixels(tmp_path):
    """The boxes of an image that shows its own mask stay around what they were around."""
    mask = np.zeros((90, 120), dtype=np.uint8)
    mask[10:40, 15:45], mask[50:85, 60:110] = 1, 2
    Image.fromarray(np.stack([mask * 100] * 3, axis=2)).save(tmp_path / "image.png")
    boxes, ids = boxes_from_mask(mask, (1, 2))
    found = Detections(torch.tensor(boxes).float(), torch.tensor([0.5, 0.9]), torch.tensor(ids))
    cache = DetectionCache.from_images(METADATA, {"image": (mask.shape, found)})
    record = {"file_name": str(tmp_path / "image.png"), "image_id": "image"}
    view = RandomView((0.5, 2.0), (70, 80), (0.0, 0.0, 0.0))
    strong = JitterView((0.5, 0.5, 0.5, 0.25), 0.8, 0.2, 0.5, (0.1, 2.0))
    mapper = UnlabeledMapper(view=view, strong=strong, views=1, cache=cache)
    seen = 0
    for seed in range(60):
        with seeded(seed):
            sample = mapper(record)
        found = sample["detections"]
        shown = (sample["image"][0].float() / 100).round().numpy()
        for box, score, class_id in zip(*found, strict=True):
            assert score == (0.5 if class_id == 1 else 0.9)
            # Of class 2 the interpolated rim looks like class 1: its inner part alone is sought.
            rows, columns = np.nonzero(shown == int(class_id))
            own = box.numpy() + np.array([-1.5, -1.5, 1.5, 1.5])
            inside = (columns >= own[0]) & (columns < own[2]) & (rows >= own[1]) & (rows < own[3])
            rows, columns = rows[inside], columns[inside]
            if len(rows):
                tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                assert np.abs(box.numpy() - tight).max() <= 1.5
                seen += 1
        for class_id in (1, 2):
            if (shown == class_id).sum() > 300:
                assert class_id in found.classes
    assert seen > 60


def test_boxes_below_the_score_are_not_believed(tree):
    tree.cfg()
    cfg = tree.cfg(*unlabeled_cache(tree))
    items = next(build_train_loader(cfg))["unlabeled"]
    everything = class_boxes([item["detections"] for item in items], 0.0)
    some = class_boxes([item["detections"] for item in items], 0.5)
    assert 0 < sum(len(ids) for _, ids in some) < sum(len(ids) for _, ids in everything)
    for item, (xyxy, ids) in zip(items, some, strict=True):
        keep = item["detections"].scores >= 0.5
        assert torch.equal(xyxy, item["detections"].boxes[keep])
        assert torch.equal(ids, item["detections"].classes[keep])
