import json
import sys

import numpy as np
import pytest
import torch
from helpers import SMALL, SMALL_DETECTOR
from PIL import Image

from wpl_d2.data import EvalDataset, check_training_data, load_description, read_image, read_mask, windows
from wpl_d2.data.component_boxes import attach_component_boxes
from wpl_d2.data.dataset_facts import measure_dataset
from wpl_d2.data.dataset_report import report_dataset
from wpl_d2.data.image_io import UnreadableImageError, read_record, read_record_mask
from wpl_d2.data.inspection import propose
from wpl_d2.data.loader import labeled_records, unlabeled_records
from wpl_d2.data.mappers import LabeledMapper
from wpl_d2.data.pixel_values import PixelLayout
from wpl_d2.data.windows import Window, image_name, windows_of
from wpl_d2.engine import Trainer
from wpl_d2.evaluation.evaluator import build_evaluator
from wpl_d2.evaluation.sem_seg import SemSegConfusionEvaluator
from wpl_d2.inference.suggestion import candidate_records
from wpl_d2.utils.errors import InputError

rasterio = pytest.importorskip("rasterio")

SIZE = (90, 130)
PART = Window(20, 33, 41, 57, SIZE)
SLICES = np.s_[20:61, 33:90]


@pytest.fixture(autouse=True)
def small_is_huge(monkeypatch):
    monkeypatch.setattr(windows, "WHOLE", 5000)
    monkeypatch.setattr(windows, "SIDE", 40)


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 4), dtype=np.uint8)


def write_tiled(path, values, **options):
    bands = np.atleast_3d(values).transpose(2, 0, 1)
    size = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    tiles = {"driver": "GTiff", "tiled": True, "blockxsize": 16, "blockysize": 16}
    with rasterio.open(path, "w", **tiles, **size, **options) as raster:
        raster.write(bands)


@pytest.mark.parametrize("size", [(90, 130), (40, 41), (2000, 1999)])
def test_windows_cover_each_pixel_once_and_are_of_nearly_one_size(size):
    sides = [window[2:4] for window in windows_of(size)]
    assert sum(height * width for height, width in sides) == size[0] * size[1]
    assert np.ptp(sides, axis=0).max() <= 1


@pytest.mark.parametrize("kind", ["tiled", "lzw", "gray", "palette", "alpha", "jpeg", "png"])
def test_a_window_is_read_as_that_part_of_the_whole(tmp_path, photo, kind):
    file = tmp_path / ("a.png" if kind == "png" else "a.tif")
    if kind == "tiled":
        write_tiled(file, photo[..., :3], compress="deflate", predictor=2)
    else:
        image = Image.fromarray(photo if kind == "alpha" else photo[..., :3])
        image = image.convert({"gray": "L", "palette": "P"}.get(kind, image.mode))
        image.save(file, **({} if kind == "png" else {"compression": "jpeg" if kind == "jpeg" else "tiff_lzw"}))
    assert np.array_equal(read_image(file, window=PART), read_image(file)[SLICES])


@pytest.mark.parametrize("kind", ["tif", "png", "palette"])
def test_a_window_of_a_mask_is_read_as_that_part_of_the_whole(tmp_path, photo, kind):
    mask = photo[..., 0] % 5
    mask[30:40] = 250
    file = tmp_path / f"a.{'png' if kind == 'png' else 'tif'}"
    image = Image.fromarray(mask)
    if kind == "palette":
        image.putpalette(photo.ravel()[:768].tolist())
    image.save(file)
    found = read_mask(file, ignore=250, window=PART)
    assert np.array_equal(found, read_mask(file, ignore=250)[SLICES])
    assert (found == 255).any()


def test_other_layouts_are_read_alike(tmp_path, photo):
    values = np.concatenate([photo, photo[::-1]], axis=2).astype(np.uint16) * 7
    write_tiled(tmp_path / "a.tif", values)
    layout = PixelLayout(tuple("abcdefgh"), ((0, 2000),) * 8)
    part = read_image(tmp_path / "a.tif", layout=layout, window=PART)
    assert np.array_equal(part, read_image(tmp_path / "a.tif", layout=layout)[SLICES])
    with pytest.raises(UnreadableImageError, match=r"a\.tif: has more than 8 bits a channel"):
        read_image(tmp_path / "a.tif", window=PART)
    write_tiled(tmp_path / "b.tif", values.astype(np.uint8))
    with pytest.raises(UnreadableImageError, match=r"b\.tif: has 8 channels"):
        read_image(tmp_path / "b.tif", window=PART)


def test_what_is_no_mask_or_does_not_fit_its_image_is_refused(tmp_path, photo):
    Image.fromarray(photo[..., 0]).save(tmp_path / "lossy.tif", compression="jpeg")
    Image.fromarray(photo[..., :3]).save(tmp_path / "colors.png")
    Image.fromarray(photo[1:, :, 0]).save(tmp_path / "short.png")
    for name, wrong in {
        "lossy.tif": "is a JPEG file",
        "colors.png": "3-channel uint8",
        "short.png": "is 130x89",
    }.items():
        with pytest.raises(InputError, match=f"{name}: .*{wrong}"):
            read_mask(tmp_path / name, window=PART)


def test_what_cannot_be_read_is_named(tmp_path, photo, monkeypatch):
    file = tmp_path / "a.tif"
    write_tiled(file, photo)
    file.write_bytes(file.read_bytes()[:20_000])
    for path in (file, tmp_path / "missing.tif"):
        with pytest.raises(UnreadableImageError, match=f"{path}: cannot be read"):
            read_image(path, window=PART)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(InputError, match=r"a\.tif: .*pip install 'wpl_d2\[geo\]'"):
        read_image(file, window=PART)


@pytest.fixture
def huge(tree):
    """The tree with three huge images: labeled, with a mask that is drawn at the left alone, unlabeled, and to test."""
    rng = np.random.default_rng(1)
    for name in ("labeled0", "unlabeled0", "val0"):
        write_tiled(tree.image(name).with_suffix(".tif"), rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
        tree.image(name).unlink()
        mask = rng.integers(0, 3, SIZE, dtype=np.uint8)
        mask[:, 50:] = 255 if name == "labeled0" else 1
        tree.write_mask(name, mask)
    tree.describe(image="images/{id}.*")
    return tree


def test_a_huge_image_counts_as_its_windows(huge):
    cfg = huge.cfg("TEST.EVAL_PERIOD", 1)
    check_training_data(cfg)
    labeled, unlabeled = labeled_records(cfg), unlabeled_records(cfg)
    assert [len(labeled), len(unlabeled)] == [2 * 2 + 2, 2 * 3 + 4]  # the third column of labeled0 is not drawn
    assert len({record["image_id"] for record in unlabeled}) == len(unlabeled)
    whole = read_image(unlabeled[0]["file_name"])
    parts = np.zeros_like(whole)
    for record in unlabeled[:6]:
        top, left, height, width, _ = record["window"]
        parts[top : top + height, left : left + width] = read_record(record)
    assert np.array_equal(parts, whole)


def test_settings_are_fitted_to_the_windows_that_are_trained_on(huge):
    cfg = huge.cfg()
    facts = measure_dataset(load_description(huge.yaml), cfg.DATASETS.TRAIN, cfg.DATASETS.UNLABELED, (), 90)
    assert (facts.labeled, facts.unlabeled, facts.size) == (len(labeled_records(cfg)), 2 * 3 + 4, (45, 43))


def test_each_window_may_be_suggested_for_labeling(huge):
    names = [image_name(record) for record in candidate_records(huge.cfg().clone())]
    assert len(set(names)) == len(names) == 2 * 3 + 4


def test_a_check_counts_the_pixels_of_all_windows(huge):
    report = report_dataset(load_description(huge.yaml), 90)
    assert report.problems == []
    assert "has more than 100 megapixels, as 3 of the images have; they count as their 18 windows" in report.notes[-1]
    mask = read_mask(huge.mask("val0"))
    counts = sum(counts for (_, file), counts in report.pixels.items() if file == str(huge.mask("val0")))
    assert counts[:3].tolist() == np.bincount(mask.ravel(), minlength=3).tolist()


def test_init_describes_huge_images_as_small_ones(tmp_path, photo, monkeypatch):
    rng = np.random.default_rng(2)
    for name in "abcdef":
        for folder, pixels in (("images", photo[..., :3]), ("masks", np.zeros(SIZE, np.uint8))):
            (tmp_path / folder).mkdir(exist_ok=True)
            if folder == "masks":
                pixels[:30] = 1  # sky, and a post in one window
                pixels[40:44, 4:9] = 2
            write_tiled(tmp_path / folder / f"{name}.tif", np.roll(pixels, rng.integers(9), axis=1))
    found = propose(tmp_path)
    monkeypatch.setattr(windows, "WHOLE", 10**9)
    whole = propose(tmp_path)
    assert (found.classes, found.objects, found.lists) == (whole.classes, whole.objects, whole.lists)
    assert (len(found.classes), found.objects) == (3, ["class_2"])


def test_shapes_and_their_boxes_are_cut_to_the_window(huge):
    shape = {"id": 1, "image_id": 1, "category_id": 5, "iscrowd": 0, "bbox": [10, 20, 50, 60]}
    shape["segmentation"] = [[10, 20, 60, 20, 60, 80, 10, 80]]
    entry = {"id": 1, "file_name": "unlabeled0.tif", "height": 90, "width": 130}
    content = {"images": [entry], "annotations": [shape], "categories": [{"id": 5, "name": "box"}]}
    (huge.root / "coco.json").write_text(json.dumps(content))
    labels = {"format": "coco", "files": ["coco.json"], "uncovered": "ground"}
    huge.describe(image="images/{id}.*", mask=None, labels=labels)
    records = load_description(huge.yaml).records("unlabeled")[:6]
    expected = np.zeros(SIZE, np.uint8)
    expected[20:80, 10:60] = 1
    for record, boxed in zip(records, attach_component_boxes(records, [1, 2], 1), strict=True):
        top, left, height, width, _ = record["window"]
        assert np.array_equal(read_record_mask(record), expected[top : top + height, left : left + width])
        x0, y0, x1, y1 = np.clip([10 - left, 20 - top, 60 - left, 80 - top], 0, [width, height, width, height])
        assert boxed["boxes"].tolist() == ([[x0, y0, x1, y1]] if x0 < x1 and y0 < y1 else [])


def test_windows_are_judged_as_the_whole_image_is(huge, monkeypatch):
    def confusion(dataset):
        evaluator = SemSegConfusionEvaluator(dataset)
        for (item,) in dataset.loader():
            evaluator.process([item], [{"sem_seg": item["image"].float()}])  # the class is that of the highest color
        assert len(evaluator._images) == len(dataset.records)
        return evaluator._matrix.counts

    huge.cfg()
    by_windows = EvalDataset(name=f"{huge.name}_val")
    assert len(by_windows.records) == 7
    monkeypatch.setattr(windows, "WHOLE", 10**9)
    whole = EvalDataset(name=f"{huge.name}_val")
    assert len(whole.records) == 2
    assert torch.equal(confusion(by_windows), confusion(whole))


def test_a_training_view_of_a_window_is_that_of_its_pixels(huge):
    cfg = huge.cfg("INPUT.SCALE_RANGE", (0.5, 2.0))
    record = labeled_records(cfg)[1]
    top, left, height, width, _ = record["window"]
    part = np.s_[top : top + height, left : left + width]
    alone = {"file_name": str(huge.root / "image.png"), "sem_seg_file_name": str(huge.root / "mask.png")}
    Image.fromarray(read_image(record["file_name"])[part]).save(alone["file_name"])
    Image.fromarray(read_mask(record["sem_seg_file_name"])[part]).save(alone["sem_seg_file_name"])
    mapper = LabeledMapper(cfg)
    for seed in range(5):
        samples = []
        for one in (record, alone):
            np.random.seed(seed)
            samples.append(mapper(one))
        assert torch.equal(samples[0]["image"], samples[1]["image"])
        assert torch.equal(samples[0]["sem_seg"], samples[1]["sem_seg"])


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_windows_are_trained_on_and_evaluated(huge, tmp_path, cache):
    opts = ["SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 2, "OUTPUT_DIR", str(tmp_path / "run"), "DATALOADER.CACHE", cache]
    cfg = huge.cfg(*SMALL, *SMALL_DETECTOR, "TEST.EVAL_PERIOD", 2, *opts)
    trainer = Trainer(cfg)
    trainer.train()
    assert np.isfinite(trainer.storage.latest()["total_loss"][0])
    assert "sem_seg/mIoU" in trainer.storage.latest()


def test_a_huge_image_is_not_turned(huge, photo):
    file = huge.image("val0").with_suffix(".tif")
    Image.fromarray(photo[..., :3]).save(file, tiffinfo={274: 6})
    with pytest.raises(InputError, match=r"val0\.tif: is stored turned"):
        load_description(huge.yaml).records("val")
    huge.describe(image="images/{id}.*", exif="ignore")
    assert len(load_description(huge.yaml).records("val")) == 7


@pytest.mark.parametrize("evaluator", ["submission", "detectron2"])
def test_evaluators_of_whole_images_refuse_windows(huge, tmp_path, evaluator):
    huge.describe(image="images/{id}.*", dataset_ids=[7, 8, 9])
    cfg = huge.cfg("TEST.EVALUATOR", evaluator)
    with pytest.raises(InputError, match=rf"TEST\.EVALUATOR: {evaluator} takes whole images"):
        build_evaluator(cfg, EvalDataset(name=f"{huge.name}_val"), tmp_path)
