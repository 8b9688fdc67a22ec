"""Pixels of more bits, of other numbers and of other channels than 8-bit RGB: their layout, decoding and scaling."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from detectron2.config import CfgNode
from PIL import ExifTags
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    ImageFileDirectory_v2,
)

from ..utils.errors import InputError

_RED_FIRST = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
_NPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BIG_TIFF = (b"II+\0", b"MM\0+")
_COLORS = ("red", "green", "blue")
_STORED = {(8, 1), (16, 1), (32, 3)}
_SOUND = {1: _STORED, 2: _STORED, 6: {(8, 1)}, 32845: {(16, 2)}}
"""By the photometric interpretation (gray with black as 0, RGB, YCbCr, LogLuv) bits and format (1: unsigned, 2: signed,
3: float) of the TIFF samples that OpenCV decodes rightly. Of others it returns wrong numbers without an error."""


class PixelLayout(NamedTuple):
    """What the pixels of a data set's images mean.

    Attributes:
        channels: their names, in the order in which files have them.
        value_range: of each channel the values that are black and white; empty for the 0 to 255 of 8 bits.
    """

    channels: tuple[str, ...] = _COLORS
    value_range: tuple[tuple[float, float], ...] = ()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> PixelLayout:
        """From `INPUT.CHANNELS` and `INPUT.VALUE_RANGE`."""
        keys = cfg.INPUT
        return cls(tuple(keys.CHANNELS), tuple((float(low), float(high)) for low, high in keys.VALUE_RANGE))

    @property
    def rgb(self) -> tuple[int, int, int] | None:
        """The places of the channels that are called red, green and blue; None if one of them is missing."""
        names = [name.casefold() for name in self.channels]
        if not set(_COLORS) <= set(names):
            return None
        red, green, blue = (names.index(color) for color in _COLORS)
        return red, green, blue


RGB = PixelLayout()
"""8-bit colors, which all formats are converted to. Images of other layouts are float32, scaled to 0..255."""


def decode_values(path: str | Path) -> tuple[np.ndarray, int]:
    """The pixels as they are stored, of any image that OpenCV reads, of a TIFF file's first page or of an `.npy` file.

    Returns:
        (H, W, channels) of the file's type, red first; and the EXIF orientation of a TIFF, which is not applied, else
        1.

    Raises:
        ValueError, OSError: it is no image, or is damaged.
        InputError: a TIFF file that needs `tifffile`, which is not installed.
    """
    with open(path, "rb") as file:
        start = file.read(len(_NPY))
    tag = 1
    if start == _NPY:
        values = np.load(path, allow_pickle=False)
    elif start[:4] in _TIFF:
        values, tag = _decode_tiff(path)
    else:
        values = _decode_by_opencv(path)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.dtype.kind not in "buif":
        raise ValueError(f"it holds {values.dtype} of shape {values.shape}, not height x width x channels of numbers")
    return values, tag


def scale_values(values: np.ndarray, layout: PixelLayout) -> np.ndarray:
    """Stored values on the scale of 8-bit images: black is 0 and white 255; what lies outside is cut off.

    Args:
        values: (..., channels) of any numbers; those that are not finite become 0, or 255 for infinity.
        layout: with a `value_range`, unless the values are uint8.

    Returns:
        (..., channels) float32 in 0..255, not rounded.
    """
    levels = values.astype(np.float32)
    if layout.value_range:
        low, high = np.array(layout.value_range, np.float32).T
        levels -= low
        levels *= np.float32(255) / (high - low)
    if values.dtype.kind == "f":
        np.nan_to_num(levels, copy=False)
    return levels.clip(0, 255, out=levels)


def _decode_by_opencv(path: str | Path) -> np.ndarray:
    with suppress(cv2.error):
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if values is not None:
            order = _RED_FIRST.get(values.shape[2]) if values.ndim == 3 else None
            return values if order is None else cv2.cvtColor(values, order)
    raise ValueError("OpenCV finds no image in it")


def _decode_tiff(path: str | Path) -> tuple[np.ndarray, int]:
    tags = read_tags(path)
    samples = tags.get(SAMPLESPERPIXEL, 1)
    kinds = {(bits, kind) for bits in tags.get(BITSPERSAMPLE, (1,)) for kind in tags.get(SAMPLEFORMAT, (1,))}
    tag = tags.get(ExifTags.Base.Orientation, 1)
    sound = (
        tag == 1
        and samples in (1, 3)
        and tags.get(PLANAR_CONFIGURATION, 1) == 1
        and kinds <= _SOUND.get(tags.get(PHOTOMETRIC_INTERPRETATION, 1), set())
    )
    return (_decode_by_opencv(path) if sound else _decode_by_tifffile(path)), tag


def read_tags(path: str | Path) -> ImageFileDirectory_v2:
    """The tags of a TIFF file's first page, of any kind: Pillow opens only some. Damaged files raise any exception."""
    with open(path, "rb") as file:
        header = file.read(8)
        header += file.read(8) if header[:4] in _BIG_TIFF else b""
        tags = ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
    return tags


def _decode_by_tifffile(path: str | Path) -> np.ndarray:
    try:
        from tifffile import TiffFile
    except ImportError as error:
        raise InputError(
            f"{path}: is of a kind of TIFF that needs the package tifffile; run `pip install 'wpl_d2[tiff]'`"
        ) from error
    try:
        with TiffFile(path) as file:
            page = file.pages.first
            values = page.asarray()
    except Exception as error:  # of any class, where the file is damaged
        raise ValueError(str(error) or type(error).__name__) from error
    return np.moveaxis(values, 0, -1) if page.axes.startswith("S") else values  # whose planes lie one after another
