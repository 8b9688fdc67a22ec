"""What the header of an image file says: bit depth, orientation, lossy compression; and pixels turned as it says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

APPLY = "apply"
EXIF = (APPLY, "ignore")
"""Ways to treat the orientation in a file's EXIF data."""
QUARTER_TURNS = 5
"""The first of EXIF's orientations that swap width and height."""

_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
# Pillow decodes some of them to colors only, so that they are no masks even where they are lossless.
_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF")
_LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
# Turns stored pixels (H, W, ...) as EXIF's orientation says.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}
_BACK = {6: 8, 8: 6}  # the others are their own inverses


def bits_per_channel(image: Image.Image) -> int:
    """Bits of a channel in the file, from its header: whatever they are, Pillow decodes colors to eight.

    Args:
        image: opened and not loaded.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if image.format == "PPM":
        return _maxval(image).bit_length()
    if image.format == "JPEG2000":
        return _jpeg2000(image)[0]
    deep = image.mode in _DEEP_MODES or (image.format == "PNG" and _raw_mode(image).endswith(";16B"))
    return 16 if deep else 8


def lossy_format(image: Image.Image) -> str:
    """The name of the format if it changes the values of a mask that is saved in it, else "".

    Args:
        image: opened and not loaded; its content counts, not the file's suffix.
    """
    if image.format == "TIFF":
        compression = str(image.info.get("compression"))
        return f"TIFF with {compression} compression" if compression in _LOSSY_IN_TIFF else ""
    lossy = not _jpeg2000(image)[1] if image.format == "JPEG2000" else image.format in _LOSSY
    return str(image.format) if lossy else ""


def scales_values(image: Image.Image) -> bool:
    """Whether Pillow stretches the stored values to 0..255: gray ones of 2 or 4 bits, or with an odd maximum.

    Args:
        image: opened and not loaded.
    """
    if image.format == "PPM" and image.mode != "1":
        return _maxval(image) not in (255, 65535)
    return _raw_mode(image).startswith(("L;2", "L;4"))


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 if the image is to be shown as it is stored."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises all kinds of errors for damaged EXIF data beside sound pixels
        return 1
    return value if value in _TURNS else 1


def shown_size(image: Image.Image) -> tuple[int, int]:
    """Width and height in pixels of an opened image, with its orientation applied."""
    width, height = image.size
    # Pillow has already exchanged those of a TIFF.
    return (height, width) if image.format != "TIFF" and orientation(image) >= QUARTER_TURNS else (width, height)


def load_pixels(image: Image.Image, mode: str | None, exif: str) -> tuple[np.ndarray, int]:
    """Decode an image to its last pixel, and apply its orientation if it is wanted, once in every format.

    Args:
        image: opened and not loaded.
        mode: Pillow's mode to convert to; None leaves the image's own.
        exif: one of `EXIF`.

    Returns:
        the pixels (H, W) or (H, W, channels), and the orientation in the file.
    """
    turned = image.format == "TIFF"  # Pillow turns these when it loads them, and forgets the tag
    tag = orientation(image) if turned else 1
    image.load()
    tag = tag if turned else orientation(image)  # a PNG may have it after the pixels
    pixels = np.asarray(image if mode in (None, image.mode) else image.convert(mode))  # which copies
    if tag == 1 or turned == (exif == APPLY):
        return pixels, tag
    return np.ascontiguousarray(_TURNS[_BACK.get(tag, tag) if turned else tag](pixels)), tag


def _tile(image: Image.Image) -> tuple[str, tuple[object, ...]]:
    """The name and the arguments of Pillow's decoder for an image."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    if not tiles:
        return "", ()
    name, _, _, args = tiles[0]
    return name, args if isinstance(args, tuple) else (args,)


def _raw_mode(image: Image.Image) -> str:
    """Pillow's name for the layout of the file's values, such as "RGB;16B"."""
    arguments = _tile(image)[1]
    return str(arguments[0]) if arguments else ""


def _maxval(image: Image.Image) -> int:
    """The value for white in a PPM or PGM file."""
    name, arguments = _tile(image)
    if name.startswith("ppm"):
        return int(str(arguments[1]))
    return 65535 if image.mode in _DEEP_MODES else 255


def _jpeg2000(image: Image.Image) -> tuple[int, bool]:
    """Of a JPEG 2000 file the bits of the first channel, and whether its wavelets are reversible."""
    file = image.fp  # type: ignore[attr-defined]
    place = file.tell()
    file.seek(0)
    head = file.read(1 << 16)
    file.seek(place)
    start = head.find(b"\xff\x4f\xff\x51")  # start of the codestream, and its SIZ segment
    coding = head.find(b"\xff\x52", start + 4 + int.from_bytes(head[start + 4 : start + 6], "big"))  # COD
    if start < 0 or coding < 0 or len(head) < coding + 14:
        return 8, False
    return (head[start + 42] & 0x7F) + 1, head[coding + 13] == 1


def turn(pixels: np.ndarray, tag: int) -> np.ndarray:
    """Stored pixels (H, W, ...) as an orientation, 1 to 8, wants them shown; any other tag is taken for 1."""
    return np.ascontiguousarray(_TURNS[tag](pixels)) if tag in _TURNS else pixels
