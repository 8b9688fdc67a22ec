import numpy as np
import pytest
from PIL import Image

from wpl_d2.data import UnreadableImageError, read_image, read_mask


def test_palette_indices_are_read_as_they_are(tmp_path):
    ids = np.array([[0, 1, 15, 255]], dtype=np.uint8)
    image = Image.fromarray(ids, mode="P")
    image.putpalette([7 * i % 256 for i in range(768)])
    image.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tolist() == ids.tolist()


def test_the_files_own_ignore_value_becomes_255(tmp_path):
    Image.fromarray(np.array([[0, 7, 1]], dtype=np.uint8)).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", ignore=7).tolist() == [[0, 255, 1]]


def test_sixteen_bits_and_one_bit(tmp_path):
    Image.fromarray(np.array([[0, 65535, 1]], dtype=np.uint16)).save(tmp_path / "wide.png")
    mask = read_mask(tmp_path / "wide.png", ignore=65535)
    assert (mask.tolist(), mask.dtype) == ([[0, 255, 1]], np.uint8)
    with pytest.raises(ValueError, match=r"wide\.png: holds ids from 0 to 65535; use 0 to 254"):
        read_mask(tmp_path / "wide.png")
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bit.png")
    assert read_mask(tmp_path / "bit.png").tolist() == [[1, 0]]


def test_colours_are_refused(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"mask\.png: is an RGB image; .*convert"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_missing_and_broken_files_are_named(tmp_path, read):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("hello")
    for name in ("half.png", "text.png", "none.png"):
        with pytest.raises(UnreadableImageError, match=f"{name}: cannot be read"):
            read(tmp_path / name)


def test_images_are_rgb_and_turned_by_exif(tmp_path):
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[0, 0] = (255, 10, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    assert image.shape == (6, 4, 3)
    assert image[0, 3].tolist() == [255, 10, 0]
    Image.new("L", (3, 2), 9).save(tmp_path / "gray.png")
    assert read_image(tmp_path / "gray.png").tolist() == [[[9] * 3] * 3] * 2


@pytest.mark.parametrize(
    "values", [np.uint16([[300]]), np.int32([[70000]]), np.float32([[0.5]])], ids=["16", "32", "f"]
)
def test_images_of_more_than_eight_bits_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "deep.tif")
    with pytest.raises(UnreadableImageError, match=r"deep\.tif: has more than 8 bits .* convert it to 8-bit"):
        read_image(tmp_path / "deep.tif")
