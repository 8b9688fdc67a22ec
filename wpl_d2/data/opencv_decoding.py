"""JPEG by OpenCV, which decodes it faster than Pillow."""

from __future__ import annotations

from contextlib import suppress

import cv2
import numpy as np
from PIL import Image

_JPEG_END = b"\xff\xd9"


def decode_jpeg(image: Image.Image) -> np.ndarray | None:
    """Decode a whole JPEG file in color, to the pixels that Pillow gives, in two thirds of its time.

    OpenCV fills up with gray what is missing at the end of a file; Pillow calls it broken.

    Args:
        image: opened by Pillow and not loaded.

    Returns:
        (H, W, 3) uint8 RGB as it is stored; None for other files and those without an end.
    """
    if image.format != "JPEG" or image.mode != "RGB":
        return None
    file = image.fp  # type: ignore[attr-defined]
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    if data.endswith(_JPEG_END):
        with suppress(cv2.error):
            return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    return None
