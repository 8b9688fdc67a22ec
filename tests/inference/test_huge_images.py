import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_writers import METADATA, boxes, run, segment, write_video

from wpl_d2.data import boxes_from_mask, read_mask, windows
from wpl_d2.inference import huge_images
from wpl_d2.inference.huge_images import overlapping_windows
from wpl_d2.inference.predictor import Predictor, predict
from wpl_d2.inference.runtime_model import RuntimeModel
from wpl_d2.inference.sources import open_source
from wpl_d2.inference.writers import PredictionWriter
from wpl_d2.structures import Detections

rasterio = pytest.importorskip("rasterio")

PLACE = rasterio.Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
SIZE = (90, 130)


@pytest.fixture
def small_is_huge(monkeypatch):
    monkeypatch.setattr(windows, "WHOLE", 5000)
    monkeypatch.setattr(huge_images, "SIDE", 40)
    monkeypatch.setattr(huge_images, "MARGIN", 8)
    monkeypatch.setattr(huge_images, "_OVERVIEW", 50)


@pytest.fixture
def photo(tmp_path):
    """Gray noise with three bright objects, and no data at the right border."""
    values = np.random.default_rng(0).integers(1, 120, SIZE, dtype=np.uint8)
    for top, left in ((3, 3), (20, 35), (60, 80)):
        values[top : top + 12, left : left + 9] = 250
    values[:, 120:] = 0
    folder = tmp_path / "in"
    folder.mkdir()
    options = {"driver": "GTiff", "height": 90, "width": 130, "count": 3, "dtype": "uint8", "nodata": 0}
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "lzw"}
    with rasterio.open(folder / "a.tif", "w", crs="EPSG:32633", transform=PLACE, **options, **tiles) as raster:
        raster.write(np.stack([values] * 3))
    return folder / "a.tif"


def find_bright(images):
    """The boxes of the bright components of each image."""
    found = []
    for image in images:
        around, classes = map(torch.from_numpy, boxes_from_mask((image[0] > 200).numpy().astype(np.uint8), [1], 1))
        found.append(Detections(around.float(), torch.full([len(around)], 0.9), classes))
    return found


@pytest.mark.parametrize("size", [(5000, 2049), (1024, 1024), (300, 400_000), (1793, 1025)])
def test_parts_cover_an_image_once_and_have_their_surroundings(size):
    pairs = overlapping_windows(size)
    assert sum(kept.height * kept.width for _, kept in pairs) == size[0] * size[1]
    assert len({kept[:2] for _, kept in pairs}) == len(pairs)
    assert len({seen[2:4] for seen, _ in pairs}) == 1
    for axis, length in enumerate(size):
        for seen, kept in pairs:
            before, after = kept[axis] - seen[axis], seen[axis] + seen[axis + 2] - kept[axis] - kept[axis + 2]
            assert seen[axis] >= 0 and seen[axis] + seen[axis + 2] <= length
            assert before >= 128 or (before >= 0 and seen[axis] == 0)
            assert after >= 128 or (after >= 0 and seen[axis] + seen[axis + 2] == length)


def read_tiff(file):
    with rasterio.open(file) as raster:
        assert (raster.crs.to_epsg(), raster.transform, raster.nodata) == (32633, PLACE, 255)
        assert [raster.colormap(1)[index][:3] for index in (0, 1)] == [tuple(color) for color in METADATA["colors"]]
        return raster.read(1)


def test_a_huge_image_is_predicted_as_the_whole(photo, tmp_path, small_is_huge):
    skipped, _, results = run(photo.parent, tmp_path / "out", detect=None, batch_size=3)
    assert skipped == [] and results.count == 1
    with rasterio.open(photo) as raster:
        values = raster.read(1)
    expected = (values > 127).astype(np.uint8)
    expected[:, 120:] = 255
    found = read_tiff(tmp_path / "out" / "masks" / "a.tif")
    assert np.array_equal(found, expected)
    assert np.array_equal(read_mask(tmp_path / "out" / "masks" / "a.tif"), expected)
    with Image.open(tmp_path / "out" / "overlays" / "a.png") as overview:
        assert overview.size == (44, 30)
        bright = np.asarray(overview)[..., 0] > np.asarray(overview)[..., 2]
    assert np.array_equal(bright, values[::3, ::3] > 127)


def test_each_object_of_a_huge_image_has_one_box(photo, tmp_path, small_is_huge):
    run(photo, tmp_path / "out", detect=find_bright)
    (file,) = set(boxes(tmp_path / "out"))
    assert file == "a.tif"
    annotations = json.loads((tmp_path / "out" / "boxes.json").read_text())["annotations"]
    assert sorted(box["bbox"] for box in annotations) == [[3, 3, 9, 12], [35, 20, 9, 12], [80, 60, 9, 12]]


def test_small_images_keep_their_georeference(photo, tmp_path):
    Image.new("RGB", (6, 5), (250,) * 3).save(photo.with_name("b.png"))
    Image.new("RGB", (6, 5), (250,) * 3).save(photo.with_name("c.tif"), tiffinfo={274: 6})
    skipped, _, _ = run(photo.parent, tmp_path / "out", detect=None, mask_format="geotiff")
    assert skipped == []
    assert (read_tiff(tmp_path / "out" / "masks" / "a.tif")[:, 119:121] != [[0, 255]]).sum() == 0
    assert read_mask(tmp_path / "out" / "masks" / "b.tif").tolist() == [[1] * 6] * 5
    assert read_mask(tmp_path / "out" / "masks" / "c.tif").tolist() == [[1] * 5] * 6


def test_frames_of_a_video_are_written_as_tiff(tmp_path):
    write_video(tmp_path / "clip.avi", [0, 255])
    run(tmp_path / "clip.avi", tmp_path / "out", detect=None, mask_format="geotiff")
    assert [read_mask(tmp_path / "out" / "masks" / "clip" / f"00000{i}.tif").max() for i in (0, 1)] == [0, 1]


def test_what_breaks_off_leaves_no_mask(photo, tmp_path, small_is_huge, capsys):
    Image.new("RGB", (6, 5)).save(photo.with_name("b.png"))
    photo.write_bytes(photo.read_bytes()[:-3000])
    skipped, _, results = run(photo.parent, tmp_path / "out", detect=None)
    assert skipped == ["a.tif"] and results.count == 1
    assert "a.tif: cannot be read" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out" / "masks").iterdir()] == ["b.png"]


def test_an_interrupted_prediction_leaves_no_mask(photo, tmp_path, small_is_huge):
    calls = []

    def interrupted(images):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return segment(images)

    with pytest.raises(KeyboardInterrupt):
        run(photo, tmp_path / "out", interrupted, detect=None, batch_size=2)
    assert list((tmp_path / "out" / "masks").iterdir()) == []


@pytest.mark.parametrize("mask_format", ["coco", "labelme"])
def test_formats_of_whole_masks_refuse_huge_images(photo, tmp_path, small_is_huge, mask_format, capsys):
    skipped, _, _ = run(photo, tmp_path / "out", detect=None, mask_format=mask_format)
    assert skipped == ["a.tif"]
    assert "take --format geotiff" in capsys.readouterr().err


def test_there_are_no_maps_of_huge_images(photo, tmp_path, small_is_huge, capsys):
    source = open_source(str(photo), output=tmp_path)
    predictor = Predictor(RuntimeModel(METADATA, segment, None), "cpu", maps=["confidence"])
    with PredictionWriter(tmp_path / "out", METADATA, False, source) as writer:
        assert len(predict(source, predictor, writer, 4)) == 1
    assert "neither maps" in capsys.readouterr().err


def test_a_full_disk_is_told(photo, small_is_huge, small_disk, capsys):
    (small_disk / "filling").write_bytes(bytes(61_000))
    skipped, _, _ = run(photo, small_disk / "out", detect=None)
    assert skipped == ["a.tif"]
    assert "a.tif: cannot be written" in capsys.readouterr().err
    assert list((small_disk / "out" / "masks").iterdir()) == []
