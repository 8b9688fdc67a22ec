"""Windows of images that are too large to be decoded whole.

A TIFF or GeoTIFF of more than `WHOLE` pixels stands for the windows that it is divided into: each is a dataset dict
with a `window`, and is read, trained on and judged as any other image. Only a window's blocks are decoded, by rasterio
(GDAL).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise, product
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import ExifTags
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH

from ..utils.errors import InputError
from .pixel_values import read_tags

if TYPE_CHECKING:
    from rasterio import DatasetReader

WHOLE = 100_000_000
"""The most pixels of a TIFF file that is decoded whole."""
SIDE = 1024
"""The windows of an image have about this height and width, in pixels."""
TIFF_SUFFIXES = (".tif", ".tiff")
_LOSSY = ("JPEG", "WEBP", "LERC", "JXL")  # as GDAL calls drivers and compressions
_CACHED_BYTES = 64 << 20  # decoded blocks that GDAL keeps; by default it takes a twentieth of the memory


class Window(NamedTuple):
    """A part of an image.

    Attributes:
        top: first row.
        left: first column.
        height: number of rows.
        width: number of columns.
        size: (height, width) of the whole image.
    """

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]


class StoredValues(NamedTuple):
    """What a file stores.

    Attributes:
        values: (H, W, bands) of the file's type.
        palette: (256, 3) uint8 colors, if there is one band of indices.
        lossy: the compression, if it changes the values of a mask, else "".
    """

    values: np.ndarray
    palette: np.ndarray | None
    lossy: str


def split_huge(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The windows of a dataset dict's image, if it is huge.

    Args:
        record: with `file_name` and `image_id`, and `exif` if the image is not to be turned as its EXIF data say.

    Returns:
        a dict for each window, with `window` and an `image_id` of its own; the dict alone if the image is none of those
        that `huge_size` finds.

    Raises:
        InputError: as of `huge_size`.
    """
    size = huge_size(record["file_name"], turn="exif" not in record)
    if size is None:
        return [record]
    return [
        {**record, "image_id": f"{record['image_id']}@{window.top},{window.left}", "window": window}
        for window in windows_of(size)
    ]


def huge_size(path: str | Path, turn: bool = True) -> tuple[int, int] | None:
    """(height, width) of a TIFF file of more than `WHOLE` pixels, from its header; of any other file None.

    Args:
        path: of a file, missing ones included; it is opened if its suffix is one of `TIFF_SUFFIXES`.
        turn: whether the image is to be turned as its EXIF orientation says.

    Raises:
        InputError: the image would have to be turned.
    """
    if not str(path).lower().endswith(TIFF_SUFFIXES):
        return None
    try:
        tags = read_tags(path)
        size = int(tags[IMAGELENGTH]), int(tags[IMAGEWIDTH])
    except Exception:  # whoever reads the image says what is wrong with it
        return None
    if math.prod(size) <= WHOLE:
        return None
    if turn and tags.get(ExifTags.Base.Orientation, 1) != 1:
        raise InputError(
            f"{path}: is stored turned, by its EXIF orientation, and is too large to be turned in memory; save it "
            "upright, or write `exif: ignore` into the data set's YAML"
        )
    return size


def windows_of(size: tuple[int, int]) -> Iterator[Window]:
    """Divide an image of `size` (height, width) into windows whose sides differ by a pixel at most."""
    rows, columns = (np.linspace(0, length, max(1, round(length / SIDE)) + 1).astype(int).tolist() for length in size)
    for (top, bottom), (left, right) in product(pairwise(rows), pairwise(columns)):
        yield Window(top, left, bottom - top, right - left, size)


def middle_window(size: tuple[int, int]) -> Window:
    """The window in the middle of an image of `size` (height, width)."""
    height, width = (min(SIDE, length) for length in size)
    return Window((size[0] - height) // 2, (size[1] - width) // 2, height, width, size)


def image_name(record: Mapping[str, Any]) -> str:
    """What tells an image from all others: its file, and of a window also where it is."""
    window = record.get("window")
    file = str(record["file_name"])
    return file if window is None else f"{file}@{window.top},{window.left}"


def read_window(path: str | Path, window: Window) -> StoredValues:
    """Read what a file stores in a window; its EXIF orientation does not count.

    Args:
        path: of a file in any of GDAL's formats. Of TIFF the window's blocks are decoded; other formats are decoded
            from the top to the window, a few rows at a time.
        window: of it.

    Raises:
        OSError: the file is missing, broken, or no image.
        InputError: it is of another size than the window's image, or rasterio is not installed.
    """
    with open_raster(path) as raster:
        if raster.shape != window.size:
            raise InputError(
                f"{path}: is {raster.width}x{raster.height}, but its image is {window.size[1]}x{window.size[0]}; make "
                "them equal"
            )
        values = np.ascontiguousarray(raster.read(window=slices(window)).transpose(1, 2, 0))
        compression = raster.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", raster.driver)
        lossy = next((name for name in _LOSSY if name in compression.upper()), "")
        return StoredValues(values, _palette(raster), lossy)


@contextmanager
def open_raster(path: str | Path, mode: str = "r", **options: Any) -> Iterator[Any]:
    """Open a file by rasterio; arguments as of `rasterio.open`.

    Raises:
        OSError: the file is missing, broken, or no image.
        InputError: rasterio is not installed.
    """
    rasterio = import_rasterio(f"{path}: is read by windows")
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    with rasterio.Env(GDAL_CACHEMAX=_CACHED_BYTES), rasterio.open(path, mode, **options) as raster:
        yield raster


def import_rasterio(what: str) -> ModuleType:
    """Import rasterio.

    Args:
        what: is done by it, for the message.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module("rasterio")
    except ImportError as error:
        raise InputError(f"{what} by rasterio, which is not installed; run `pip install 'wpl_d2[geo]'`") from error


def slices(window: Window) -> tuple[slice, slice]:
    """Rows and columns of a window."""
    return slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)


def to_rgb(stored: StoredValues) -> np.ndarray:
    """The colors (H, W, 3) of one to four bands of bytes, as Pillow has them, without alpha."""
    values, palette, _ = stored
    if palette is not None:
        return palette[values[..., 0]]
    return np.repeat(values[..., :1], 3, axis=2) if values.shape[2] < 3 else values[..., :3]


def _palette(raster: DatasetReader) -> np.ndarray | None:
    try:
        colors = raster.colormap(1)
    except ValueError:  # there is none
        return None
    return np.array([colors.get(index, (0, 0, 0))[:3] for index in range(256)], dtype=np.uint8)
