"""Reading images and masks of any format, with errors that name the file."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import PIL
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from ..structures import IGNORE
from ..utils.errors import InputError
from .file_cache import ArrayCache, file_state
from .image_header import (
    APPLY,
    QUARTER_TURNS,
    bits_per_channel,
    load_pixels,
    lossy_format,
    orientation,
    scales_values,
    turn,
)
from .opencv_decoding import decode_jpeg
from .pixel_values import RGB, PixelLayout, decode_values, read_tags, scale_values
from .windows import WHOLE, Window, read_window, to_rgb

_VERSION = 1  # of what decoding gives
_INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
_READ_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, RuntimeError),
    *(struct.error, zlib.error),
)


class UnreadableImageError(InputError):
    """An image file is missing, truncated, of another kind or too deep."""


def read_image(
    path: str | Path, exif: str = APPLY, layout: PixelLayout = RGB, window: Window | None = None
) -> np.ndarray:
    """Read an image and apply its EXIF orientation.

    Args:
        path: of the file, in any format; the suffix does not matter.
        exif: one of `EXIF`; "ignore" leaves the pixels as they are stored.
        layout: of the pixels.
        window: read this alone, of an image that is not turned.

    Returns:
        (H, W, 3) uint8, red first, as `RGB`; else (H, W, channels) float32 in 0..255 (see `scale_values`).

    Raises:
        UnreadableImageError: the file is missing or broken, or of another layout, or nothing says how to scale its
            values.
    """
    if layout != RGB:
        return scale_values(read_values(path, exif, layout, window)[0], layout)
    return read_image_and_tag(path, exif)[0] if window is None else _read_rgb_window(path, window)


def _read_rgb_window(path: str | Path, window: Window) -> np.ndarray:
    with _clear_errors(path):
        stored = read_window(path, window)
    values, bands = stored.values, stored.values.shape[2]
    if values.dtype != np.uint8:
        raise _too_deep(path, f"{values.dtype} values")
    if bands > 4:
        raise _too_many(path, bands)
    return to_rgb(stored)


def read_values(
    path: str | Path, exif: str, layout: PixelLayout, window: Window | None = None
) -> tuple[np.ndarray, int]:
    """Read the values of an image of another layout than `RGB` as they are stored; args and errors as of `read_image`.

    Returns:
        (H, W, channels) of the file's type, and the EXIF orientation in the file. A gray image has its values in each
        of three channels where the layout's are red, green and blue.
    """
    with _clear_errors(path):
        if window is not None:
            values, tag = read_window(path, window).values, 1
        else:
            values, tag = decode_values(path)
            with suppress(UnidentifiedImageError), Image.open(path) as image:
                tag = tag if image.format == "TIFF" else orientation(image)
    if values.shape[2] == 1 and layout.channels == RGB.channels:
        values = values.repeat(3, axis=2)
    found, wanted = values.shape[2], len(layout.channels)
    if found != wanted:
        raise UnreadableImageError(
            f"{path}: has {found} channel{'s' * (found != 1)}, and the data set {wanted} ({', '.join(layout.channels)}"
            "); mend 'channels' of its YAML, convert the image, or take it out of the list"
        )
    if values.dtype not in (np.uint8, bool) and not layout.value_range:
        raise _too_deep(path, f"{values.dtype} values")
    return turn(values, tag) if exif == APPLY else values, tag


def read_image_and_tag(path: str | Path, exif: str = APPLY) -> tuple[np.ndarray, int]:
    """As `read_image`, with the file's EXIF orientation, 1 to 8."""
    with _opened(path) as image:
        bits = bits_per_channel(image)
        if bits > 8:
            raise _too_deep(path, str(bits))
        if image.format == "TIFF":
            samples = image.tag_v2.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)  # type: ignore[attr-defined]
            if samples > len(image.getbands()) + 1:  # one may be transparency; Pillow shows some of the others as gray
                raise _too_many(path, samples)
        pixels = decode_jpeg(image)
        if pixels is None:
            return load_pixels(image, "RGB", exif)
        tag = orientation(image)
        return turn(pixels, tag) if exif == APPLY else pixels, tag


def read_size(path: str | Path, exif: str = APPLY) -> tuple[int, int]:
    """Height and width of an image as `read_image` gives it, from its header.

    Raises:
        UnreadableImageError: the file is missing or broken.
    """
    try:
        tags = read_tags(path)  # also of the kinds of TIFF that Pillow does not know, or finds too large
        size = tags[TiffImagePlugin.IMAGELENGTH], tags[TiffImagePlugin.IMAGEWIDTH]
        tag = tags.get(ExifTags.Base.Orientation, 1)
    except Exception:  # it is no TIFF, or a damaged one
        size, tag = _read_size_of_other(path)
    return size[::-1] if exif == APPLY and tag >= QUARTER_TURNS else size


def _read_size_of_other(path: str | Path) -> tuple[tuple[int, int], int]:
    """Height and width as stored, and EXIF orientation, of a file that is no TIFF."""
    with _clear_errors(path):
        try:
            with Image.open(path) as image:
                return image.size[::-1], orientation(image)
        except UnidentifiedImageError:
            values, _ = decode_values(path)
            return (values.shape[0], values.shape[1]), 1


def read_record(record: Mapping[str, Any]) -> np.ndarray:
    """`read_image` of a dataset dict, with its `exif`, `layout` and `window`."""
    how = record.get("exif", APPLY), record.get("layout", RGB), record.get("window")
    return read_image(record["file_name"], *how)


def read_raw_mask(path: str | Path, exif: str = APPLY, gray_colors: bool = False) -> np.ndarray:
    """Read a mask's values as stored; of palette images the indices, never the colors.

    Args:
        path: of the file, in any lossless format.
        exif: see `read_image`.
        gray_colors: admit colors whose channels are equal.

    Returns:
        (H, W) array of uint8, or of a wider integer type for 16- and 32-bit files.

    Raises:
        UnreadableImageError: the file is missing or broken.
        InputError: it holds colors, or its format does not keep the values that were saved.
    """
    with _opened(path) as image:
        _refuse_lossy(path, lossy_format(image))
        if image.mode not in _INDEX_MODES:
            return _gray(path, image, exif) if gray_colors else _refuse_colors(path, image.mode)
        if scales_values(image):
            raise InputError(
                f"{path}: stores gray values of less than 8 bits, or up to another maximum than 255, which readers "
                "stretch; save the mask as 8-bit PNG"
            )
        values, _ = load_pixels(image, None, exif)
    return values.astype(np.uint8) if values.dtype == bool else values


def read_color_mask(path: str | Path, exif: str = APPLY) -> np.ndarray:
    """Read a mask's colors; of palette images what the palette says.

    Args:
        path: of the file, in any lossless format. Opacity is left out.
        exif: see `read_image`.

    Returns:
        (H, W, 3) uint8, red first.

    Raises:
        UnreadableImageError: the file is missing or broken.
        InputError: it has more than eight bits a channel, or its format does not keep the values that were saved.
    """
    with _opened(path) as image:
        _refuse_lossy(path, lossy_format(image))
        return _colors(path, image, exif)


def _colors(path: str | Path, image: Image.Image, exif: str) -> np.ndarray:
    if bits_per_channel(image) > 8:
        raise InputError(
            f"{path}: is an {image.mode} image of more than 8 bits a channel, which are neither ids nor colors; save "
            "class ids, as integers, or 8-bit colors"
        )
    return load_pixels(image, "RGB", exif)[0]


def _gray(path: str | Path, image: Image.Image, exif: str) -> np.ndarray:
    mode = image.mode
    colors = _colors(path, image, exif)
    return np.ascontiguousarray(colors[..., 0]) if (colors == colors[..., :1]).all() else _refuse_colors(path, mode)


def _refuse_colors(path: str | Path, mode: str) -> NoReturn:
    raise InputError(
        f"{path}: is an {mode} image; masks hold one class id per pixel, convert its colors to ids, or say in 'labels' "
        "of the data set's YAML what they mean: {format: color_masks}, or {format: masks} if they are all gray"
    )


def _refuse_lossy(path: str | Path, lossy: str) -> None:
    if lossy:
        raise InputError(
            f"{path}: is a {lossy} file, whose compression makes ids that nobody drew; save the mask as PNG, from what "
            "this file was made of"
        )


def _read_mask_window(path: str | Path, window: Window) -> np.ndarray:
    with _clear_errors(path):
        values, _, lossy = read_window(path, window)
    _refuse_lossy(path, lossy)
    if values.shape[2] > 1 or values.dtype.kind not in "iu":
        _refuse_colors(path, f"{values.shape[2]}-channel {values.dtype}")
    return values[..., 0]


def read_mask(path: str | Path, ignore: int = IGNORE, exif: str = APPLY, window: Window | None = None) -> np.ndarray:
    """Read a mask of class ids.

    Args:
        path: an image of one 8- or 16-bit channel or with a palette, whose values are class ids.
        ignore: the file's value for "no class".
        exif: see `read_image`.
        window: see `read_image`.

    Returns:
        (H, W) uint8 class ids, `IGNORE` where there is none.

    Raises:
        UnreadableImageError: the file is missing or broken.
        InputError: it is a color image, is compressed with loss, or has ids that no class can have.
    """
    values = read_raw_mask(path, exif) if window is None else _read_mask_window(path, window)
    if ignore != IGNORE:
        if (values == IGNORE).any():
            raise InputError(
                f"{path}: holds {IGNORE}, which is not a class id, and 'ignore' of the data set's YAML is {ignore}; "
                f"write 'ignore: {IGNORE}', or save the mask with class ids"
            )
        values = np.where(values == ignore, IGNORE, values)
    if values.dtype != np.uint8:
        if values.min() < 0 or values.max() > IGNORE:
            raise InputError(
                f"{path}: holds ids from {values.min()} to {values.max()}; use 0 to {IGNORE - 1}, and "
                f"'ignore' of the data set's YAML for the rest"
            )
        values = values.astype(np.uint8)
    return values


def read_record_mask(record: Mapping[str, Any]) -> np.ndarray:
    """Read the mask of a dataset dict, as the description of its data set wants it; see `read_mask`."""
    if "sem_seg_error" in record:
        raise InputError(record["sem_seg_error"])
    how = record.get("sem_seg_ignore", IGNORE), record.get("exif", APPLY), record.get("window")
    try:
        return read_mask(record["sem_seg_file_name"], *how)
    except UnreadableImageError as error:
        if "sem_seg_source" not in record:
            raise
        raise UnreadableImageError(
            f"{record['sem_seg_source']}: what was made of it is no longer in the cache ({error}); start again, which "
            "makes it anew"
        ) from error


def label_file(record: Mapping[str, Any]) -> str:
    """The user's file that holds the labels of a dataset dict, for messages."""
    return str(record.get("sem_seg_source") or record["sem_seg_file_name"])


class ImageReader:
    """Reads images and masks of dataset dicts, or takes them out of a cache of decoded ones.

    What is in the cache is not read but mapped into memory: of a window that is cut out of it, nothing else is read.
    """

    def __init__(self, cache: ArrayCache | None = None) -> None:
        """Read.

        Args:
            cache: of decoded images; None: each is decoded each time.
        """
        self.cache = cache

    def image(self, record: Mapping[str, Any]) -> np.ndarray:
        """As `read_record`."""
        return self._read(read_record, record, "file_name", record.get("layout", RGB))

    def mask(self, record: Mapping[str, Any]) -> np.ndarray:
        """As `read_record_mask`."""
        return self._read(read_record_mask, record, "sem_seg_file_name", "mask", record.get("sem_seg_ignore", IGNORE))

    def _read(
        self, read: Callable[[Mapping[str, Any]], np.ndarray], record: Mapping[str, Any], key: str, *how: object
    ) -> np.ndarray:
        if self.cache is None:
            return read(record)
        # Other decoders may take lossy formats for other values.
        where = file_state(record[key]), record.get("exif", APPLY), record.get("window")
        source = _VERSION, PIL.__version__, cv2.__version__, *where, how
        name = hashlib.sha256(repr(source).encode()).hexdigest()[:32]
        return self.cache.get(name, lambda: read(record))


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open an image; errors inside the block become `UnreadableImageError` with the file's name."""
    # Not by its name: Pillow would map the file into memory, and lays out a gray TIFF that is to be turned wrongly.
    with _clear_errors(path), open(path, "rb") as file, Image.open(file) as image:
        yield image


@contextmanager
def _clear_errors(path: str | Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except UnidentifiedImageError as error:
        # Pillow knows no colors of 32 bits, nor more channels than four.
        try:
            values, _ = decode_values(path)
        except InputError:
            raise
        except _READ_ERRORS:
            raise _unreadable(path, "no image begins as it does") from error
        channels = values.shape[2]
        deep = channels in (1, 3)
        raise (_too_deep(path, f"{values.dtype} values") if deep else _too_many(path, channels)) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(
            f"{path}: is too large to be decoded whole ({error}); save it as TIFF, of which more than {WHOLE // 10**6} "
            "megapixels are read by windows"
        ) from error
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error


def _too_deep(path: str | Path, what: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"{path}: has more than 8 bits a channel ({what}), and nothing says which value is white; convert it to 8-bit "
        "gray or RGB, or write `value_range: [black, white]` into the data set's YAML"
    )


def _too_many(path: str | Path, channels: int) -> UnreadableImageError:
    return UnreadableImageError(
        f"{path}: has {channels} channels, and nothing says which ones; convert it to 8-bit gray or RGB, or write "
        "`channels: [red, green, blue, ...]` into the data set's YAML"
    )


def _unreadable(path: str | Path, why: object) -> UnreadableImageError:
    return UnreadableImageError(f"{path}: cannot be read ({why}); restore the file or take it out of the list")
