"""Reading images and masks as they are, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from detectron2.data import detection_utils
from PIL import Image

from ..errors import InputError
from ..structures import IGNORE

_INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
# Of more than eight bits: Pillow would cut their values off at 255.
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


class UnreadableImageError(InputError):
    """A file that is missing, truncated or no image."""


def read_image(path: str | Path) -> np.ndarray:
    """Read an image, turned as its EXIF orientation says.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        UnreadableImageError: if the file is missing or broken, or grey with more than eight bits: nothing says which of
            its values is white.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
        if mode not in _DEEP_MODES:
            return detection_utils.read_image(str(path), format="RGB")
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error
    raise UnreadableImageError(f"{path}: has more than 8 bits a channel (mode {mode}); convert it to 8-bit grey or RGB")


def read_raw_mask(path: str | Path) -> np.ndarray:
    """Read a mask's values as stored: palette images give their indices, never the colours' grey values.

    Returns:
        (H, W) array of uint8, or of a wider integer type for 16- and 32-bit files.

    Raises:
        UnreadableImageError: if the file is missing or broken.
        InputError: the file holds colours instead of class ids.
    """
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.asarray(image)
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error
    if mode not in _INDEX_MODES:
        raise InputError(f"{path}: is an {mode} image; masks hold one class id per pixel, convert its colours to ids")
    return values.astype(np.uint8) if values.dtype == bool else values


def read_mask(path: str | Path, ignore: int = IGNORE) -> np.ndarray:
    """Read a mask of class ids.

    Args:
        path: an image of one 8- or 16-bit channel or with a palette, whose values are class ids.
        ignore: the file's value for "no class".

    Returns:
        (H, W) uint8 class ids, `IGNORE` where there is none.

    Raises:
        UnreadableImageError: if the file is missing or broken.
        InputError: it is a colour image or has ids that no class can have.
    """
    values = read_raw_mask(path)
    if ignore != IGNORE:
        values = np.where(values == ignore, IGNORE, values)
    if values.dtype != np.uint8:
        if values.min() < 0 or values.max() > IGNORE:
            raise InputError(
                f"{path}: holds ids from {values.min()} to {values.max()}; use 0 to {IGNORE - 1}, and "
                f"'ignore' of the data set's YAML for the rest"
            )
        values = values.astype(np.uint8)
    return values


def _unreadable(path: str | Path, error: BaseException) -> UnreadableImageError:
    return UnreadableImageError(f"{path}: cannot be read ({error}); restore the file or take it out of the list")
