"""What the header of an image file says beyond Pillow's mode: its bits, its orientation, whether values are kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

APPLY = "apply"
EXIF = (APPLY, "ignore")
"""What can be done with the orientation in a file's EXIF data."""
QUARTER_TURNS = 5
"""The first of EXIF's orientations in which width and height change places."""

_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
# Pillow gives some of them as colours only, so that they are no masks even where they are lossless.
_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF")
_LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
# How stored pixels (H, W, ...) become what is to be seen, by EXIF's orientation.
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
    """Bits of a channel in the file, from its header; but for grey images, Pillow gives eight of however many.

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
    """The name of the format if it does not keep a mask's values as they are saved, else "".

    Args:
        image: opened and not loaded; its content counts, whatever the file's suffix is.
    """
    if image.format == "TIFF":
        compression = str(image.info.get("compression"))
        return f"TIFF with {compression} compression" if compression in _LOSSY_IN_TIFF else ""
    lossy = not _jpeg2000(image)[1] if image.format == "JPEG2000" else image.format in _LOSSY
    return str(image.format) if lossy else ""


def scales_values(image: Image.Image) -> bool:
    """Whether Pillow stretches the stored values to 0..255: grey ones of 2 or 4 bits, or with an odd maximum.

    Args:
        image: opened and not loaded.
    """
    if image.format == "PPM" and image.mode != "1":
        return _maxval(image) not in (255, 65535)
    return _raw_mode(image).startswith(("L;2", "L;4"))


def orientation(image: Image.Image) -> int:
    """EXIF's number for the turn that a viewer gives to an image, 1 to 8; 1 where nothing is to be done."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises all kinds of errors for damaged EXIF data beside sound pixels
        return 1
    return value if value in _TURNS else 1


def shown_size(image: Image.Image) -> tuple[int, int]:
    """Width and height in pixels of an opened image after its turn."""
    width, height = image.size
    # Pillow has already exchanged those of a TIFF.
    return (height, width) if image.format != "TIFF" and orientation(image) >= QUARTER_TURNS else (width, height)


def load_pixels(image: Image.Image, mode: str | None, exif: str) -> tuple[np.ndarray, int]:
    """Decode an image to its last pixel and turn it once, whatever Pillow does with its format.

    Args:
        image: opened and not loaded.
        mode: of Pillow, to convert to; None: as it is.
        exif: one of `EXIF`: turn as the orientation says, or leave pixels as they are stored.

    Returns:
        the pixels (H, W) or (H, W, channels), and the orientation in the file.
    """
    turned = image.format == "TIFF"  # Pillow turns these when it loads them, and forgets the tag
    tag = orientation(image) if turned else 1
    image.load()
    tag = tag if turned else orientation(image)  # a PNG may have it after the pixels
    pixels = np.asarray(image.convert(mode) if mode else image)
    if tag == 1 or turned == (exif == APPLY):
        return pixels, tag
    return np.ascontiguousarray(_TURNS[_BACK.get(tag, tag) if turned else tag](pixels)), tag


def _tile(image: Image.Image) -> tuple[str, tuple[object, ...]]:
    """Name and arguments of the decoder that Pillow will use."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    if not tiles:
        return "", ()
    name, _, _, args = tiles[0]
    return name, args if isinstance(args, tuple) else (args,)


def _raw_mode(image: Image.Image) -> str:
    """Pillow's name for how values lie in the file, such as "RGB;16B"."""
    arguments = _tile(image)[1]
    return str(arguments[0]) if arguments else ""


def _maxval(image: Image.Image) -> int:
    """The value of a PPM or PGM file that stands for white."""
    name, arguments = _tile(image)
    if name.startswith("ppm"):
        return int(str(arguments[1]))
    return 65535 if image.mode in _DEEP_MODES else 255


def _jpeg2000(image: Image.Image) -> tuple[int, bool]:
    """Bits of the first channel, and whether the wavelets of a JPEG 2000 file are the reversible ones."""
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
