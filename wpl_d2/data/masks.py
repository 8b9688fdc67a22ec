"""Reading images and masks as they are, with errors that name the file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from ..structures import IGNORE
from .headers import APPLY, bits_per_channel, load_pixels, lossy_format, scales_values

_INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
_READ_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, RuntimeError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)


class UnreadableImageError(InputError):
    """A file that is missing, truncated or no image."""


def read_image(path: str | Path, exif: str = APPLY) -> np.ndarray:
    """Read an image, turned as its EXIF orientation says.

    Args:
        path: of the file; its content says which format it has.
        exif: "ignore" leaves it as it is stored.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        UnreadableImageError: if the file is missing or broken, or has more than eight bits a channel: nothing says
            which of its values is white.
    """
    return read_image_and_tag(path, exif)[0]


def read_image_and_tag(path: str | Path, exif: str = APPLY) -> tuple[np.ndarray, int]:
    """As `read_image`, with the EXIF orientation that the file has, 1 to 8."""
    with _opened(path) as image:
        bits = bits_per_channel(image)
        if bits > 8:
            raise _too_deep(path, str(bits))
        return load_pixels(image, "RGB", exif)


def read_record(record: Mapping[str, Any]) -> np.ndarray:
    """Read the image of a dataset dict, as the description of its data set wants it; see `read_image`."""
    return read_image(record["file_name"], record.get("exif", APPLY))


def read_raw_mask(path: str | Path, exif: str = APPLY) -> np.ndarray:
    """Read a mask's values as stored: palette images give their indices, never the colours' grey values.

    Args:
        path: of the file; its content says which format it has.
        exif: what is done with an EXIF orientation, as for `read_image`.

    Returns:
        (H, W) array of uint8, or of a wider integer type for 16- and 32-bit files.

    Raises:
        UnreadableImageError: if the file is missing or broken.
        InputError: the file holds colours instead of class ids, or other values than were once saved in it.
    """
    with _opened(path) as image:
        lossy = lossy_format(image)
        if lossy:
            raise InputError(
                f"{path}: is a {lossy} file, whose compression makes ids that nobody drew; save the mask as PNG, from "
                "what this file was made of"
            )
        if image.mode not in _INDEX_MODES:
            raise InputError(
                f"{path}: is an {image.mode} image; masks hold one class id per pixel, convert its colours to ids"
            )
        if scales_values(image):
            raise InputError(
                f"{path}: stores grey values of less than 8 bits, or up to another maximum than 255, which readers "
                "stretch; save the mask as 8-bit PNG"
            )
        values, _ = load_pixels(image, None, exif)
    return values.astype(np.uint8) if values.dtype == bool else values


def read_mask(path: str | Path, ignore: int = IGNORE, exif: str = APPLY) -> np.ndarray:
    """Read a mask of class ids.

    Args:
        path: an image of one 8- or 16-bit channel or with a palette, whose values are class ids.
        ignore: the file's value for "no class".
        exif: what is done with an EXIF orientation, as for `read_image`.

    Returns:
        (H, W) uint8 class ids, `IGNORE` where there is none.

    Raises:
        UnreadableImageError: if the file is missing or broken.
        InputError: it is a colour image, is compressed with loss, or has ids that no class can have.
    """
    values = read_raw_mask(path, exif)
    if ignore != IGNORE:
        if (values == IGNORE).any():
            raise InputError(
                f"{path}: holds {IGNORE}, which is no class id, and 'ignore' of the data set's YAML is {ignore}; write "
                f"'ignore: {IGNORE}', or save the mask with class ids"
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


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """An image to be read inside, where errors get the file's name."""
    try:
        # Not by its name: Pillow would map the file into memory, and lays out a grey TIFF that is to be turned wrongly.
        with open(path, "rb") as file, Image.open(file) as image:
            yield image
    except InputError:
        raise
    except UnidentifiedImageError as error:
        # Pillow knows no colours of 32 bits, and OpenCV does.
        with suppress(cv2.error):
            other = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if other is not None and other.dtype != np.uint8:
                raise _too_deep(path, f"{other.dtype} values") from error
        raise _unreadable(path, "no image begins as it does") from error
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error


def _too_deep(path: str | Path, what: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"{path}: has more than 8 bits a channel ({what}), and nothing says which value is white; convert it to 8-bit "
        "grey or RGB"
    )


def _unreadable(path: str | Path, why: object) -> UnreadableImageError:
    return UnreadableImageError(f"{path}: cannot be read ({why}); restore the file or take it out of the list")
