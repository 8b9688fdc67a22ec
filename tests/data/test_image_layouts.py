"""Images by OpenCV: the pixels of JPEG files, and types and channels beside colors of eight bits."""

import cv2
import numpy as np
import pytest
from PIL import Image

from wpl_d2.data.file_cache import ArrayCache
from wpl_d2.data.image_io import ImageReader, PixelLayout, UnreadableImageError, load_pixels, read_image

LAYOUTS = {
    "gray16.png": PixelLayout("uint16", 1),
    "color16.png": PixelLayout("uint16", 3),
    "alpha16.png": PixelLayout("uint16", 4),
    "alpha8.png": PixelLayout("uint8", 4),
    "gray.tif": PixelLayout("float32", 1),
    "color.tif": PixelLayout("float32", 3),
}


def write(path, layout):
    """Random values of a layout in a file, and as they are to be read."""
    values = np.random.default_rng(0).random((30, 40, layout.channels)) * (200 if layout.dtype == "uint8" else 60000)
    values = values.astype(layout.dtype)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[layout.channels]
    assert cv2.imwrite(str(path), values[..., order], [cv2.IMWRITE_TIFF_COMPRESSION, 1])  # which keeps them
    return values


@pytest.mark.parametrize("name", ["dsc", "whole", "orient6", "cmyk", "gray", "progressive"])
@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_jpeg_files_have_the_pixels_of_pillow(tmp_path, shared, name, exif):
    source = Image.open(min((shared / "camvid/images").iterdir())).resize((301, 203))
    source = source.convert({"cmyk": "CMYK", "gray": "L"}.get(name, "RGB"))
    tags = Image.Exif()
    tags[0x0112] = 6 if name == "orient6" else 1
    options = {"dsc": {"subsampling": 2}, "whole": {"subsampling": 0}, "progressive": {"progressive": True}}
    path = tmp_path / "image.jpg"
    source.save(path, quality=90, exif=tags, **options.get(name, {}))
    with Image.open(path) as image:
        expected, _ = load_pixels(image, "RGB", exif)
    found = read_image(path, exif)
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous and found.dtype == np.uint8


def test_what_follows_the_end_of_a_jpeg_file_does_no_harm(tmp_path):
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "a.jpg")
    expected = read_image(tmp_path / "a.jpg")
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(b"more")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), expected)


@pytest.mark.parametrize("name", LAYOUTS)
def test_other_layouts_are_read_as_they_are_stored(tmp_path, name):
    values = write(tmp_path / name, LAYOUTS[name])
    found = read_image(tmp_path / name, layout=LAYOUTS[name])
    assert found.dtype == LAYOUTS[name].dtype
    np.testing.assert_array_equal(found, values)
    other = PixelLayout("uint16", 2)
    with pytest.raises(UnreadableImageError, match=rf"{name}: has \d channels of .*, not 2 of uint16"):
        read_image(tmp_path / name, layout=other)


def test_a_file_of_no_values_is_unreadable(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(UnreadableImageError, match="OpenCV finds no image"):
        read_image(tmp_path / "a.png", layout=LAYOUTS["gray16.png"])


def test_other_layouts_are_turned_too(tmp_path):
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) * 1000
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(values).save(tmp_path / "a.png", exif=tags)
    layout = PixelLayout("uint16", 1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", layout=layout)[..., 0], np.rot90(values, -1))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", "ignore", layout)[..., 0], values)


def test_a_cached_image_is_mapped_and_a_window_of_it_is_no_copy(tmp_path):
    layout = PixelLayout("uint16", 3)
    values = write(tmp_path / "a.png", layout)
    cache = ArrayCache(tmp_path / "cache", 1 << 20, keep=True)
    record = {"file_name": str(tmp_path / "a.png")}
    with cache.in_use():
        ImageReader(cache, layout).image(record)
        found = ImageReader(cache, layout).image(record)
    assert isinstance(found.base, np.memmap)
    assert np.shares_memory(found, found[5:9, 7:20])
    np.testing.assert_array_equal(found[5:9, 7:20], values[5:9, 7:20])
