import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from helpers import CLASSES, SMALL, SMALL_DETECTOR, SMALL_FPN
from torch import nn

from wpl_d2 import build_model
from wpl_d2.data.detection_cache import CacheMetadata, DetectionCache
from wpl_d2.inference.detection_caching import cache_detections
from wpl_d2.utils.errors import InputError

METADATA = CacheMetadata("digest", tuple(CLASSES), 0.05)
OBJECTS = (2, 1)


class Brightness(nn.Module):
    """Finds as many boxes as the image's mean brightness says, so that every image has its own."""

    def __init__(self, images=1000):
        super().__init__()
        self.left = images
        self.seen = []

    def forward(self, batch):
        (item,) = batch
        assert not self.training and item["image"].dtype == torch.uint8
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.seen.append(item["image_id"])
        mean = float(item["image"].float().mean())
        count = int(mean * 100) % 4
        size = (item["height"], item["width"])
        found = Instances(size, pred_boxes=Boxes(torch.arange(4.0).repeat(count, 1) * 10 + mean / 100))
        found.scores, found.pred_classes = torch.linspace(0.9, 0.1, count), torch.arange(count) % 2
        return [{"instances": found}]


@pytest.fixture
def records(tree, monkeypatch):
    monkeypatch.setattr("wpl_d2.inference.detection_caching.PART", 2)
    tree.cfg()
    return DatasetCatalog.get(f"{tree.name}_unlabeled")


def run(model, records, path, metadata=METADATA):
    return cache_detections(model.eval(), records, metadata, OBJECTS, path, workers=0)


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, (size, found) in ours.items():
        assert size == theirs[name][0] and all(map(torch.equal, found, theirs[name][1]))


def test_every_image_gets_its_boxes_in_semantic_classes(records, tmp_path):
    cache = run(Brightness(), [*records, records[0]], tmp_path / "boxes.npz")
    assert len(cache) == len(records)
    assert len({len(found.boxes) for _, found in cache.values()}) > 1
    for size, found in cache.values():
        assert size == (50, 60)
        assert found.classes.tolist() == [2, 1, 2, 1][: len(found.boxes)]
        assert (found.scores.diff() < 0).all()
    assert_same(cache, DetectionCache.load(tmp_path / "boxes.npz"))
    assert [path.name for path in tmp_path.glob("boxes*")] == ["boxes.npz"]


def test_a_stopped_run_goes_on(records, tmp_path):
    whole = run(Brightness(), records, tmp_path / "whole.npz")
    with pytest.raises(KeyboardInterrupt):
        run(Brightness(images=3), records, tmp_path / "boxes.npz")
    assert not (tmp_path / "boxes.npz").exists()
    second = Brightness()
    assert_same(run(second, records, tmp_path / "boxes.npz"), whole)
    assert len(second.seen) == len(records) - 2  # the first part was complete


def test_parts_of_another_detector_are_not_taken(records, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Brightness(images=3), records, tmp_path / "boxes.npz")
    other = Brightness()
    run(other, records, tmp_path / "boxes.npz", CacheMetadata("other", tuple(CLASSES), 0.05))
    assert len(other.seen) == len(records)


def test_a_file_gets_the_images_that_it_lacks(records, tree, tmp_path):
    first = run(Brightness(), records[:3], tmp_path / "boxes.npz")
    labeled = DatasetCatalog.get(f"{tree.name}_labeled")
    model = Brightness()
    both = run(model, [*records, *labeled], tmp_path / "boxes.npz")
    assert sorted(model.seen) == sorted(record["image_id"] for record in [*records[3:], *labeled])
    assert first.keys() < both.keys()
    idle = Brightness()
    assert_same(run(idle, records, tmp_path / "boxes.npz"), both)
    assert not idle.seen


def test_the_file_of_another_detector_stays(records, tmp_path):
    before = run(Brightness(), records, tmp_path / "boxes.npz")
    with pytest.raises(InputError, match="is there already, with boxes of another detector"):
        run(Brightness(), records, tmp_path / "boxes.npz", CacheMetadata("other", tuple(CLASSES), 0.05))
    assert_same(before, DetectionCache.load(tmp_path / "boxes.npz"))


def test_an_image_that_cannot_be_read_has_no_boxes(records, tree, tmp_path):
    tree.image("unlabeled1").write_bytes(b"no image")
    cache = run(Brightness(), records, tmp_path / "boxes.npz")
    size, found = cache["unlabeled1"]
    assert size == (0, 0) and not len(found.boxes)
    assert len(cache) == len(records)


@pytest.mark.parametrize("opts", [SMALL_FPN, SMALL_DETECTOR], ids=["alone", "shared"])
def test_every_box_above_the_score_is_kept(records, tree, tmp_path, opts):
    limits = ["TEST.DETECTIONS_PER_IMAGE", 1, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.2]
    model = build_model(tree.cfg(*SMALL, *opts, *limits))
    cache = run(model, records[:1], tmp_path / "boxes.npz")
    assert all(len(found.boxes) > 1 and found.scores.min() >= 0.2 for _, found in cache.values())


def test_masks_are_not_opened(records, tree, tmp_path):
    for path in (tree.root / "masks").iterdir():
        path.write_bytes(b"secret")
    assert len(run(Brightness(), records, tmp_path / "boxes.npz")) == len(records)
