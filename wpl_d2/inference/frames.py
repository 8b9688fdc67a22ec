"""Frames of videos as image files, to train on without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import cv2
import numpy as np
from tqdm import tqdm

from ..data import UnreadableImageError
from ..utils.errors import InputError
from ..utils.files import replace_file
from .sources import Video

_THUMBNAIL = (32, 32)
_QUALITY = 95  # of JPEG


class ExtractedVideo(NamedTuple):
    """What became of a video.

    Attributes:
        frames: that were decoded.
        images: that were written.
        alike: frames that were left out because they look like the image before them.
        problem: why it broke off, or "".
    """

    frames: int
    images: int
    alike: int
    problem: str


def extract_frames(file: Path, output: Path, every: int, min_change: float) -> ExtractedVideo:
    """Write every n-th frame of a video as `VIDEO_NUMBER.jpg`, but for those that hardly differ from the last one.

    Args:
        file: of the video.
        output: the folder, which exists.
        every: n.
        min_change: the mean difference of two frames, shrunk to 32x32 gray pixels, as a share of white; what has less
            is left out.

    Raises:
        InputError: OpenCV cannot read the video.
        UnwritableError: an image cannot be written.
    """
    video, last, images, alike, frames, problem = Video(file), None, 0, 0, 0, ""
    for number, frame in enumerate(tqdm(video, desc=file.name, unit="frame", disable=None)):
        if isinstance(frame.image, UnreadableImageError):
            problem = str(frame.image)
            break
        frames += 1
        if number % every:
            continue
        pixels = cv2.cvtColor(cast(np.ndarray, frame.image), cv2.COLOR_RGB2BGR)
        small = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), _THUMBNAIL, interpolation=cv2.INTER_AREA)
        if last is not None and cv2.absdiff(small, last).mean() < 255 * min_change:
            alike += 1
            continue
        last = small
        encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
        replace_file(output / f"{file.stem}_{number:06d}.jpg", encoded.tofile)
        images += 1
    return ExtractedVideo(frames, images, alike, problem)


def check_names(files: Sequence[Path]) -> None:
    """Check that the images of no two videos have the same names.

    Raises:
        InputError: two have.
    """
    known: dict[str, Path] = {}
    for file in files:
        other = known.setdefault(file.stem.casefold(), file)
        if other is not file:
            raise InputError(f"{file}: its images would be named as those of {other}; rename one of them")
