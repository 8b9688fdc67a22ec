"""Images by OpenCV: the pixels of JPEG files, and types and channels beside colors of eight bits."""

import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from wpl_d2.data.file_cache import ArrayCache
from wpl_d2.data.image_header import load_pixels
from wpl_d2.data.image_io import ImageReader, UnreadableImageError, read_image, read_values
from wpl_d2.data.pixel_values import RGB, PixelLayout, scale_values
from wpl_d2.utils.errors import InputError

FILES = {
    "gray16.png": ("uint16", 1),
    "color16.png": ("uint16", 3),
    "alpha16.png": ("uint16", 4),
    "alpha8.png": ("uint8", 4),
    "gray.tif": ("float32", 1),
    "color.tif": ("float32", 3),
    "five.npy": ("int32", 5),
}
TURNS = {1: np.asarray, 3: lambda a: a[::-1, ::-1], 6: lambda a: np.rot90(a, -1)}


def layout_of(channels, value_range=((0.0, 60000.0),)):
    return PixelLayout(tuple(f"c{place}" for place in range(channels)), value_range * channels)


def write(path, dtype, channels):
    """Random values in a file, and as they are to be read."""
    values = np.random.default_rng(0).random((30, 40, channels)) * (200 if dtype == "uint8" else 60000)
    values = values.astype(dtype)
    if path.suffix == ".npy":
        np.save(path, values)
        return values
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
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


@pytest.mark.parametrize("name", FILES)
def test_other_layouts_are_read_as_they_are_stored(tmp_path, name):
    dtype, channels = FILES[name]
    values = write(tmp_path / name, dtype, channels)
    found, _ = read_values(tmp_path / name, "apply", layout_of(channels))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, values)
    with pytest.raises(UnreadableImageError, match=rf"{name}: has {channels} channels?, and the data set 2 \(c0, c1\)"):
        read_image(tmp_path / name, layout=layout_of(2))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("planar", [False, True], ids=["pixels", "planes"])
def test_tiff_files_of_every_kind_are_read_as_they_are_stored(tmp_path, dtype, channels, planar):
    """OpenCV and Pillow return wrong numbers for many of them, without an error."""
    tifffile = pytest.importorskip("tifffile")
    values = (np.random.default_rng(0).random((5, 8, channels)) * 200 - (dtype == "int16") * 90).astype(dtype)
    stored = np.moveaxis(values, 2, 0) if planar else values
    kind = {"photometric": "rgb" if channels == 3 else "minisblack", "planarconfig": 2 if planar else 1}
    kind = kind if channels > 1 else {}
    for orientation, turn in TURNS.items():
        tag = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(tmp_path / "a.tif", stored if channels > 1 else values[..., 0], extratags=tag, **kind)
        for exif, expected in (("apply", turn(values)), ("ignore", values)):
            found, told = read_values(tmp_path / "a.tif", exif, layout_of(channels))
            assert (found.dtype, told) == (dtype, orientation)
            np.testing.assert_array_equal(found, expected)


def test_without_tifffile_the_extra_is_named(tmp_path, monkeypatch):
    options = {"photometric": "minisblack", "planarconfig": 1}
    pytest.importorskip("tifffile").imwrite(tmp_path / "a.tif", np.zeros((6, 8, 5), np.uint16), **options)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(InputError, match=r"a\.tif: .* needs the package tifffile; run `pip install 'wpl_d2\[tiff\]'`"):
        read_image(tmp_path / "a.tif", layout=layout_of(5))


@pytest.mark.parametrize("planar", [1, 2])
def test_more_channels_than_colors_are_not_taken_for_colors(tmp_path, planar):
    shape = (6, 8, 5) if planar == 1 else (5, 6, 8)
    options = {"photometric": "minisblack", "planarconfig": planar, "compression": "zlib"}
    pytest.importorskip("tifffile").imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8), **options)
    with pytest.raises(UnreadableImageError, match=r"a\.tif: has 5 channels, .* write `channels: "):
        read_image(tmp_path / "a.tif")


def test_values_are_scaled_by_their_range_and_cut_off_at_its_ends():
    values = np.array([[100, 0], [150, 5], [200, 20], [90, 10], [60000, 10]], np.uint16)
    found = scale_values(values, PixelLayout(("a", "b"), ((100, 200), (0, 10))))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0, 0], [127.5, 127.5], [255, 255], [0, 255], [255, 255]])


def test_sixteen_bits_of_eight_are_the_eight():
    values = np.arange(256, dtype=np.uint16)[:, None]
    np.testing.assert_allclose(scale_values(values * 257, layout_of(1, ((0, 65535),))), values, rtol=1e-6)


def test_what_is_no_number_is_black():
    values = np.float32([[np.nan], [np.inf], [-np.inf], [0.5]])
    np.testing.assert_array_equal(scale_values(values, layout_of(1, ((0, 1),))), [[0], [255], [0], [127.5]])


def test_eight_bits_need_no_range_and_others_do(tmp_path):
    values = write(tmp_path / "a.png", "uint8", 4)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", layout=layout_of(4, ())), values.astype(np.float32))
    write(tmp_path / "b.png", "uint16", 4)
    with pytest.raises(UnreadableImageError, match=r"b\.png: has more than 8 bits .* write `value_range: \[black,"):
        read_image(tmp_path / "b.png", layout=layout_of(4, ()))


def test_gray_files_are_gray_colors(tmp_path):
    values = write(tmp_path / "a.png", "uint16", 1)
    found = read_image(tmp_path / "a.png", layout=PixelLayout(value_range=((0, 65535),) * 3))
    np.testing.assert_allclose(found, (values / 257).repeat(3, axis=2), rtol=1e-5)


@pytest.mark.parametrize("content", [b"no image", b"II*\0 no image", b"\x93NUMPY no image"])
def test_a_file_of_no_values_is_unreadable(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"a\.png: cannot be read \("):
        read_image(tmp_path / "a.png", layout=layout_of(1))


def test_an_array_of_another_shape_or_of_objects_is_unreadable(tmp_path):
    for values in (np.zeros(4), np.array([[{}]]), np.zeros((3, 4), complex)):
        np.save(tmp_path / "a.npy", values, allow_pickle=True)
        with pytest.raises(UnreadableImageError, match=r"a\.npy: cannot be read \("):
            read_image(tmp_path / "a.npy", layout=layout_of(1))


def test_other_layouts_are_turned_too(tmp_path):
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) * 1000
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(values).save(tmp_path / "a.png", exif=tags)
    for exif, expected in (("apply", np.rot90(values, -1)), ("ignore", values)):
        found, _ = read_values(tmp_path / "a.png", exif, layout_of(1))
        np.testing.assert_array_equal(found[..., 0], expected)


def test_a_cached_image_is_mapped_and_a_window_of_it_is_no_copy(tmp_path):
    values = write(tmp_path / "a.png", "uint16", 3)
    cache = ArrayCache(tmp_path / "cache", 1 << 20, keep=True)
    record = {"file_name": str(tmp_path / "a.png"), "layout": layout_of(3)}
    with cache.in_use():
        ImageReader(cache).image(record)
        found = ImageReader(cache).image(record)
        other = ImageReader(cache).image(record | {"layout": layout_of(3, ((0.0, 30000.0),))})
    assert isinstance(found.base, np.memmap)
    assert np.shares_memory(found, found[5:9, 7:20])
    np.testing.assert_allclose(found[5:9, 7:20], values[5:9, 7:20] / (60000 / 255), rtol=1e-5)
    assert (other != found).any()


def test_channels_are_found_by_their_names():
    assert RGB.rgb == (0, 1, 2)
    assert PixelLayout(("NIR", "Blue", "green", "red")).rgb == (3, 2, 1)
    assert PixelLayout(("red", "green")).rgb is None
