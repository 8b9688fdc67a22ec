import struct
import zlib

import cv2
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


def test_colors_are_refused(tmp_path):
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


def deep(file, kind):
    """Write a picture of more than eight bits a channel."""
    pixels = np.random.default_rng(0).integers(0, 1024, (48, 64, 4), dtype=np.uint16)
    if kind == "ppm_10_bits":
        file.write_bytes(b"P6 64 48 1023\n" + pixels[..., :3].astype(">u2").tobytes())
    elif kind == "plain_ppm":
        file.write_text("P3 16 12 1023\n" + " ".join(map(str, pixels[..., :3].ravel())))
    else:
        cv2.imwrite(str(file), *kind(pixels))


RAW = [cv2.IMWRITE_TIFF_COMPRESSION, 1]
DEEP = {
    "rgb.png": lambda pixels: (pixels[..., :3],),
    "rgba.png": lambda pixels: (pixels,),
    "gray.png": lambda pixels: (pixels[..., 0],),
    "rgb_lzw.tif": lambda pixels: (pixels[..., :3],),
    "rgb.tif": lambda pixels: (pixels[..., :3], RAW),
    "rgba.tif": lambda pixels: (pixels, RAW),
    "gray.tif": lambda pixels: (pixels[..., 0],),
    "float_rgb.tif": lambda pixels: (pixels[..., :3].astype(np.float32),),
    "float.tif": lambda pixels: (pixels[..., 0].astype(np.float32),),
    "rgb.ppm": lambda pixels: (pixels[..., :3],),
    "gray.pgm": lambda pixels: (pixels[..., 0],),
    "float.pfm": lambda pixels: (pixels[..., :3].astype(np.float32),),
    "rgb.jp2": lambda pixels: (pixels[..., :3],),
    "light.hdr": lambda pixels: (pixels[..., :3].astype(np.float32),),
    "white_is_1023.ppm": "ppm_10_bits",
    "text.ppm": "plain_ppm",
}


@pytest.mark.parametrize("name", DEEP)
def test_images_of_more_than_eight_bits_are_refused_whatever_their_colors(tmp_path, name):
    deep(tmp_path / name, DEEP[name])
    (tmp_path / name).rename(tmp_path / "deep.png")  # what counts is what is in the file
    with pytest.raises(UnreadableImageError, match=r"deep\.png: has more than 8 bits .* convert it to 8-bit"):
        read_image(tmp_path / "deep.png")


@pytest.mark.parametrize(
    "values", [np.uint16([[300]]), np.int32([[70000]]), np.float32([[0.5]])], ids=["16", "32", "f"]
)
def test_gray_values_of_more_than_eight_bits_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "deep.tif")
    with pytest.raises(UnreadableImageError, match=r"deep\.tif: has more than 8 bits .* convert it to 8-bit"):
        read_image(tmp_path / "deep.tif")


SHALLOW = {
    "a.png": ("RGB", {}),
    "b.png": ("RGBA", {}),
    "c.png": ("LA", {}),
    "d.png": ("1", {}),
    "e.png": ("P", {}),
    "a.tif": ("RGB", {"compression": "tiff_lzw"}),
    "b.tif": ("CMYK", {}),
    "c.tif": ("1", {"compression": "group4"}),
    "a.jpg": ("L", {}),
    "a.ppm": ("RGB", {}),
    "a.bmp": ("RGB", {}),
    "a.gif": ("P", {}),
    "a.jp2": ("RGB", {}),
    "a.webp": ("RGB", {"lossless": True}),
}


@pytest.mark.parametrize("name", SHALLOW)
def test_images_of_eight_bits_and_fewer_are_read(tmp_path, name):
    mode, options = SHALLOW[name]
    image = Image.new("RGB", (16, 12), (255, 255, 255)).convert(mode)
    image.save(tmp_path / name, **options)
    pixels = read_image(tmp_path / name)
    assert (pixels.shape, pixels.dtype) == ((12, 16, 3), np.uint8)
    assert (pixels > 250).all()


def test_sixteen_bits_of_a_pixel_are_few_of_a_channel(tmp_path):
    header = struct.pack("<2sIHHI IiiHHIIiiII", b"BM", 54 + 8, 0, 0, 54, 40, 2, 2, 1, 16, 0, 8, 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(header + b"\xff\x7f" * 4)  # 5 bits a channel
    assert (read_image(tmp_path / "a.bmp") == 255).all()


LOSSY = {
    "a.jpg": {},
    "a.webp": {},
    "a.avif": {},
    "a.jp2": {"irreversible": True, "quality_mode": "rates", "quality_layers": [40]},
    "a.tif": {"compression": "jpeg"},
}


@pytest.mark.parametrize("name", LOSSY)
def test_masks_with_losses_are_refused_by_their_content(tmp_path, name):
    ids = np.zeros((48, 64), np.uint8)
    ids[8:30, 10:40] = 5
    Image.fromarray(ids).save(tmp_path / name, **LOSSY[name])
    (tmp_path / name).rename(tmp_path / "mask.png")
    with pytest.raises(
        ValueError, match=r"mask\.png: is a .* file, whose compression makes ids that nobody drew; save"
    ):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(
            ("a.png", {}),
            ("a.bmp", {}),
            ("a.gif", {}),
            ("a.pgm", {}),
            ("a.tif", {}),
            ("b.tif", {"compression": "lzma"}),
        ),
        *(("c.tif", {"compression": "packbits"}), ("a.jp2", {"irreversible": False}), ("a.tga", {})),
    ],
)
def test_masks_of_exact_formats_are_read_whatever_their_suffix(tmp_path, name, options):
    ids = np.random.default_rng(0).integers(0, 21, (48, 64), dtype=np.uint8)
    Image.fromarray(ids).save(tmp_path / name, **options)
    (tmp_path / name).rename(tmp_path / "mask.jpg")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.jpg"), ids)


def gray_png(file, rows, bits):
    """A gray PNG of so many bits a pixel, which no library here writes."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    width = len(rows[0]) * 8 // bits
    header = struct.pack(">IIBBBBB", width, len(rows), bits, 0, 0, 0, 0)
    lines = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b""))


@pytest.mark.parametrize("bits", [2, 4])
def test_ids_that_readers_stretch_to_255_are_refused(tmp_path, bits):
    gray_png(tmp_path / "a.png", [[0x12, 0x01]], bits)
    assert np.asarray(Image.open(tmp_path / "a.png")).max() > 15  # what Pillow makes of ids below 4 or 16
    with pytest.raises(ValueError, match=r"a\.png: stores gray values of less than 8 bits, .*; save the mask as 8-bit"):
        read_mask(tmp_path / "a.png")
    (tmp_path / "b.pgm").write_bytes(b"P5 3 1 20\n" + bytes([0, 1, 20]))
    with pytest.raises(ValueError, match=r"b\.pgm: stores gray values .* another maximum than 255"):
        read_mask(tmp_path / "b.pgm")


def test_few_bits_of_a_palette_are_ids(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 3, 2]], np.uint8), mode="P")
    image.putpalette([7 * i % 256 for i in range(12)])
    image.save(tmp_path / "a.png", bits=2)
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1, 3, 2]]


def test_255_is_no_class_only_if_the_description_says_so(tmp_path):
    Image.fromarray(np.array([[0, 255, 1]], dtype=np.uint8)).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tolist() == [[0, 255, 1]]
    with pytest.raises(ValueError, match=r"mask\.png: holds 255, .* 'ignore' of the data set's YAML is 254; write"):
        read_mask(tmp_path / "mask.png", ignore=254)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "a.bmp", "a.gif", "a.ppm", "lzw.tif", "a.jp2"])
def test_cut_files_are_unreadable(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name, **({"compression": "tiff_lzw"} if name == "lzw.tif" else {}))
    read_image(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        read_image(tmp_path / name)
