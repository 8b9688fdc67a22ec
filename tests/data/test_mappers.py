import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image

from wpl_d2.data import EvalMapper, LabeledMapper, UnlabeledMapper, attach_component_boxes, boxes_from_mask, seeded
from wpl_d2.data.loader import labeled_records, unlabeled_records
from wpl_d2.data.mappers import MIN_VISIBLE
from wpl_d2.data.transforms.geometry import RandomView

SIZES = [(321, 321), (513, 513), (65, 97), (20, 30)]


def color_by_class(tree, name):
    """An image whose colors tell the class of each pixel, so that image and mask can be compared."""
    mask = np.asarray(Image.open(tree.mask(name)))
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[[0, 1, 2, 255]] = [[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    Image.fromarray(palette[mask]).save(tree.image(name))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("resize", ["antialias", "bilinear"])
def test_image_mask_and_boxes_move_together(tree, size, scale, resize):
    color_by_class(tree, "labeled0")
    keys = ["INPUT.CROP_SIZE", size, "INPUT.SCALE_RANGE", scale, "INPUT.RESIZE", resize]
    cfg = tree.cfg(*keys, "MODEL.DETECTOR.MODE", "shared")
    mapper, record = LabeledMapper(cfg), labeled_records(cfg)[0]
    colors = torch.tensor([[0.0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    for seed in range(10):
        np.random.seed(seed)
        sample = mapper(record)
        image, mask, instances = sample["image"], sample["sem_seg"], sample["instances"]
        assert image.shape == (3, *size)
        assert (image.dtype, mask.dtype, mask.shape) == (torch.uint8, torch.int64, size)
        assert (sample["height"], sample["width"]) == (50, 60)

        padding = (image == torch.tensor([124, 116, 104])[:, None, None].byte()).all(dim=0)
        assert (mask[padding] == 255).all()
        expected = torch.tensor([0, 1, 2, 255])[
            torch.cdist(image.permute(1, 2, 0).reshape(-1, 3).float(), colors).argmin(1)
        ].reshape(size)
        differs = (expected != mask) & ~padding
        edge = 0.0 if scale == (1.0, 1.0) else 0.1  # bilinear colors and nearest ids differ along edges
        assert differs.sum() <= edge * (~padding).sum()

        found, ids = boxes_from_mask(mask.numpy(), [2, 1], min_area=1)
        found, ids = torch.tensor(found), torch.tensor([{2: 0, 1: 1}[int(i)] for i in ids], dtype=torch.long)
        keep = ((found[:, 2:] - found[:, :2]) >= MIN_VISIBLE).all(dim=1)
        if scale == (1.0, 1.0):
            assert instances.gt_boxes.tensor.tolist() == found[keep].tolist()
            assert instances.gt_classes.tolist() == ids[keep].tolist()
        for box, label in zip(found[keep], ids[keep], strict=True):
            same = instances.gt_boxes.tensor[instances.gt_classes == label]
            assert len(same) == 0 or (same - box).abs().max(dim=1).values.min() <= 2


def test_padding_is_at_the_right_and_the_bottom_and_not_valid(tree):
    cfg = tree.cfg("INPUT.CROP_SIZE", (70, 80), "INPUT.SCALE_RANGE", (1.0, 1.0), "INPUT.STRONG.VIEWS", 2)
    sample = UnlabeledMapper(cfg)(unlabeled_records(cfg)[0])
    valid = torch.zeros(70, 80, dtype=torch.bool)
    valid[:50, :60] = True
    assert torch.equal(sample["valid"], valid)
    assert (sample["image"][:, ~valid] == torch.tensor([[124], [116], [104]])).all()
    assert sample["strong"].shape == (2, 3, 70, 80)
    assert sample["strong"].dtype == torch.uint8
    labels = LabeledMapper(cfg)(labeled_records(cfg)[0])["sem_seg"]
    assert (labels[~valid] == 255).all()
    assert (labels[valid] != 255).any()


def test_crops_reach_every_place_independently_in_rows_and_columns():
    image = np.stack(np.meshgrid(np.arange(9), np.arange(9), indexing="ij") * 2, axis=-1)[..., :3]
    view = RandomView((1.0, 1.0), (8, 8), (0, 0, 0))
    np.random.seed(0)
    corners = set()
    for _ in range(100):
        crop = view(image.astype(np.uint8)).image
        corners.add((int(crop[..., 0].min()), int(crop[..., 1].min())))
    assert corners == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_boxes_outside_the_view_or_barely_in_it_are_dropped(tree):
    cfg = tree.cfg("INPUT.CROP_SIZE", (12, 12), "INPUT.SCALE_RANGE", (1.0, 1.0))
    record = DatasetCatalog.get(f"{tree.name}_labeled")[0]
    record["boxes"] = np.array([[0, 0, 60, 50], [0, 0, 1.5, 50]], dtype=np.float32)
    record["box_classes"] = np.array([0, 1])
    for seed in range(20):
        np.random.seed(seed)
        instances = LabeledMapper(cfg)(record)["instances"]
        assert instances.gt_boxes.tensor.tolist() == [[0, 0, 12, 12]]
        assert instances.gt_classes.tolist() == [0]


@pytest.mark.parametrize("device", ["cpu", "model"])
def test_a_labeled_image_has_a_strong_view_if_asked_for(tree, device):
    opts = ["INPUT.STRONG.DEVICE", device, "INPUT.STRONG.VIEWS", 2]
    record = labeled_records(tree.cfg())[0]
    with seeded(1):
        plain = LabeledMapper(tree.cfg(*opts))(record)
    with seeded(1):
        sample = LabeledMapper(tree.cfg(*opts, "INPUT.STRONG.LABELED", True))(record)
    (name,) = sample.keys() - plain.keys()
    assert all(torch.equal(sample[key], plain[key]) for key in ("image", "sem_seg", "valid"))
    assert name == {"cpu": "strong", "model": "operations"}[device] and len(sample[name]) == 1
    if device == "cpu":
        assert sample[name][0].shape == sample["image"].shape and not torch.equal(sample[name][0], sample["image"])


def test_the_strong_views_change_colors_alone(tree):
    strength = ("INPUT.STRONG.JITTER_PROB", 0.0, "INPUT.STRONG.GRAY_PROB", 0.0, "INPUT.STRONG.BLUR_PROB", 0.0)
    record = {"file_name": str(tree.image("unlabeled0"))}
    plain = UnlabeledMapper(tree.cfg(*strength))(record)
    assert torch.equal(plain["strong"][0], plain["image"])
    gray = UnlabeledMapper(tree.cfg(*strength[:2], "INPUT.STRONG.GRAY_PROB", 1.0, *strength[4:]))(record)
    assert torch.equal(gray["strong"][0, 0], gray["strong"][0, 2])
    for key in ("JITTER_PROB", "BLUR_PROB"):
        with seeded(0):  # the weakest blur there is changes nothing
            changed = UnlabeledMapper(tree.cfg(*strength, f"INPUT.STRONG.{key}", 1.0))(record)
        assert not torch.equal(changed["strong"][0], changed["image"])


def test_evaluation_takes_the_whole_image(tree):
    record = {"file_name": str(tree.image("val0")), "sem_seg_file_name": "m.png", "image_id": "val0"}
    sample = EvalMapper()(record)
    image = np.asarray(Image.open(tree.image("val0")))
    assert torch.equal(sample.pop("image"), torch.from_numpy(image.copy()).permute(2, 0, 1))
    assert sample == {**record, "height": 50, "width": 60}


def test_a_mask_that_does_not_fit_is_named(tree):
    cfg = tree.cfg()
    record = labeled_records(cfg)[0]
    tree.write_mask("labeled0", np.full((50, 60), 3, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"labeled0\.png: holds the ids \[3\], but there are 3 classes; mend"):
        LabeledMapper(cfg)(record)
    tree.write_mask("labeled0", np.zeros((60, 50), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"labeled0\.png: is 50x60 but its image .* is 60x50; make them equal"):
        LabeledMapper(cfg)(record)


def test_the_mapper_needs_the_classes(tree):
    cfg = tree.cfg()
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 0
    with pytest.raises(ValueError, match="NUM_CLASSES: is 0; call setup_datasets"):
        LabeledMapper(cfg)


def test_real_boxes_follow_real_masks(shared, monkeypatch, tmp_path):
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path))
    mask = shared / "camvid" / "masks" / "Seq05VD_f00000.png"
    image = shared / "camvid" / "images" / "Seq05VD_f00000.jpg"
    objects = (2, 6, 8, 9, 10)
    (record,) = attach_component_boxes([{"file_name": str(image), "sem_seg_file_name": str(mask)}], objects, 1)
    assert len(record["boxes"]) > 5
    mapper = LabeledMapper(view=RandomView((1.0, 1.0), (400, 500), (0, 0, 0)), num_classes=11)
    sample = mapper(record)
    found, _ = boxes_from_mask(sample["sem_seg"].numpy(), objects, min_area=1)
    found = [box for box in found.tolist() if box[2] - box[0] > 1 and box[3] - box[1] > 1]
    assert sorted(sample["instances"].gt_boxes.tensor.tolist()) == sorted(found)
