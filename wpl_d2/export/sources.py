"""What to predict: a folder of images, those that a pattern matches, or the frames of a video."""

from __future__ import annotations

import glob
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from ..data import UnreadableImageError, read_image
from ..errors import InputError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".webm")
MASKS, OVERLAYS = "masks", "overlays"
"""Folders of results, which are no input."""


class Frame(NamedTuple):
    """One image.

    Attributes:
        name: of its results, without suffix; perhaps with folders.
        file: of the image itself, with suffix, as the name.
        image: (H, W, 3) uint8 RGB, or why there is none.
    """

    name: PurePath
    file: PurePath
    image: np.ndarray | UnreadableImageError


class Source(Protocol):
    """Images in turn."""

    @property
    def video(self) -> tuple[PurePath, float] | None:
        """The name of the video that the images are of, and its frames a second; None for single images."""

    def __iter__(self) -> Iterator[Frame]:
        """The images."""

    def __len__(self) -> int:
        """Their number, which a video's header may have wrong."""


class ImageFiles:
    """Image files, named by their places below the folder that they have in common."""

    video: None = None

    def __init__(self, files: list[Path], root: Path) -> None:
        """Name the files.

        Args:
            files: below `root`.
            root: kept out of the names.
        """
        places = [PurePath(file.relative_to(root)) for file in files]
        count = Counter(place.with_suffix("") for place in places)
        # Beside a.png, a.jpg keeps its suffix: each has a mask of its own.
        names = [place if count[place.with_suffix("")] > 1 else place.with_suffix("") for place in places]
        self._files = list(zip(names, places, files, strict=True))

    def __len__(self) -> int:
        """The number of files."""
        return len(self._files)

    def __iter__(self) -> Iterator[Frame]:
        """Read one after the other."""
        for name, place, file in self._files:
            try:
                yield Frame(name, place, read_image(file))
            except UnreadableImageError as error:
                yield Frame(name, place, error)


class Video:
    """The frames of a video, named VIDEO/000000 and so on."""

    def __init__(self, file: Path) -> None:
        """Open a video.

        Raises:
            InputError: OpenCV cannot read it.
        """
        self._file = file
        self._capture = cv2.VideoCapture(str(file))
        if not self._capture.isOpened():
            raise InputError(f"{file}: cannot be read as a video; convert it to MP4 (H.264)")
        self.video = (PurePath(file.stem), self._capture.get(cv2.CAP_PROP_FPS) or 25.0)

    def __len__(self) -> int:
        """The number of frames that the header names."""
        return max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[Frame]:
        """Decode one after the other, once; where the video breaks off, the last one has no image."""
        for number in itertools.count():
            there, pixels = self._capture.read()
            name = self.video[0] / f"{number:06d}"
            if not there:
                break
            yield Frame(name, name, np.ascontiguousarray(pixels[..., ::-1]))
        # Many a header is off by a frame, or guesses from duration and rate.
        missing = len(self) - number
        if number == 0 or missing > max(1, len(self) // 100):
            told = f"{self._file}: breaks off after {number} frames, its header names {len(self)}; copy it anew"
            yield Frame(name, name, UnreadableImageError(told))


def open_source(given: str, without: Path | None = None) -> Source:
    """What a user named.

    Args:
        given: a folder (searched with its subfolders), a pattern such as "data/*/left.png", an image or a video.
        without: the output's folder, whose earlier results are left out.

    Raises:
        InputError: there is nothing of that kind.
    """
    path = Path(given).expanduser()
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        return Video(path)
    files, root = image_files(given)
    results = [] if without is None else [without.resolve() / name for name in (MASKS, OVERLAYS)]
    kept = [file for file in files if not any(folder in file.resolve().parents for folder in results)]
    if not kept:
        raise InputError(f"{given}: no images there; name a folder, a pattern in quotes, or a video")
    return ImageFiles(kept, root)


def image_files(given: str) -> tuple[list[Path], Path]:
    """The files of a folder with its subfolders, or of a pattern, in order, and the folder that holds them all.

    Args:
        given: in a folder the suffix tells what is an image; what a pattern matches is taken for one.
    """
    path = Path(given).expanduser()
    if path.is_dir():
        return sorted(
            file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
        ), path
    if path.is_file():
        return [path], path.parent
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
    plain = itertools.takewhile(lambda part: not glob.has_magic(part), path.parent.parts)
    return [match for match in matches if match.is_file()], Path(*plain)
