"""The images to predict: of a folder, of a pattern, or the frames of a video."""

from __future__ import annotations

import contextlib
import glob
import itertools
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from PIL import Image

from ..data import UnreadableImageError, read_image
from ..data.pixel_values import RGB, PixelLayout
from ..data.windows import huge_size
from ..utils.errors import InputError
from ..utils.files import is_system_file
from .huge_images import HugeImage

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".webm")
MASKS, COCO_MASKS, LABELME_MASKS, OVERLAYS = "masks", "masks.json", "labelme", "overlays"
CONFIDENCE, PROBABILITIES = "confidence", "probabilities"
BOXES, INDEX = "boxes.json", "predicted.json"
RESULTS = (MASKS, COCO_MASKS, LABELME_MASKS, OVERLAYS, CONFIDENCE, PROBABILITIES, BOXES, INDEX)
"""Folders and files of results, which are not read as input."""
_SYSTEM = "hidden or system"


class Frame(NamedTuple):
    """One image of a source.

    Attributes:
        name: path of its results, relative and without suffix.
        file: path of the image, relative to the source's root; of a video's frame, its name.
        image: of `read_image`; or what windows of it can be read from; or the error that it cannot be read.
    """

    name: PurePath
    file: PurePath
    image: np.ndarray | HugeImage | UnreadableImageError


class Source(Protocol):
    """An iterable of images.

    Attributes:
        root: the folder that holds them all.
        layout: of the images' pixels.
        paths: the images' or video's paths relative to `root`, by the name of the results.
    """

    root: Path
    layout: PixelLayout
    paths: Mapping[PurePath, PurePath]

    @property
    def video(self) -> tuple[PurePath, float] | None:
        """Name and frames per second of the video; None for single images."""

    def __iter__(self) -> Iterator[Frame]:
        """Read the images one by one."""

    def __len__(self) -> int:
        """The number of images, as far as a video's header is right."""

    def ignored(self) -> list[str]:
        """Describe the input that was ignored, such as files of other types; complete after the iteration."""


class Listing(NamedTuple):
    """The files of a folder or pattern.

    Attributes:
        files: images, in order.
        root: the folder that holds them all.
        others: number of other files by suffix.
    """

    files: list[Path]
    root: Path
    others: Counter[str]


class ImageFiles:
    """Image files as a `Source`; results are named by `result_names`."""

    video: None = None

    def __init__(self, listing: Listing, layout: PixelLayout = RGB) -> None:
        self.root, self.layout = listing.root, layout
        paths = [PurePath(file.relative_to(self.root)) for file in listing.files]
        self.paths: Mapping[PurePath, PurePath] = dict(zip(result_names(paths), paths, strict=True))
        self._others = listing.others
        self._alpha: list[str] = []
        self._pages: list[str] = []

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Frame]:
        for name, path in self.paths.items():
            file = self.root / path
            try:
                size, layout = huge_size(file), self.layout
                image = read_image(file, layout=layout) if size is None else HugeImage(file, size, layout)
            except UnreadableImageError as error:
                yield Frame(name, path, error)
            except Exception as error:  # a broken file must not stop the others
                yield Frame(name, path, UnreadableImageError(f"{file}: cannot be read ({error}); restore the file"))
            else:
                self._check_ignored(file, path)
                yield Frame(name, path, image)

    def ignored(self) -> list[str]:
        """See `Source`."""
        others = self._others.copy()
        hidden = others.pop(_SYSTEM, 0)
        kinds = ", ".join(f"{suffix} {count}" for suffix, count in sorted(others.items()))
        texts = [f"{others.total()} files of other kinds ({kinds})"] if others else []
        texts += [f"{hidden} {_SYSTEM} files"] if hidden else []
        texts += [f"the alpha channel of {len(self._alpha)} images, such as {self._alpha[0]}"] if self._alpha else []
        pages = "all but the first picture of"
        return texts + ([f"{pages} {len(self._pages)} files, such as {self._pages[0]}"] if self._pages else [])

    def _check_ignored(self, file: Path, path: PurePath) -> None:
        # The first picture could be read; the rest of the file may be broken in any way.
        with contextlib.suppress(Exception), Image.open(file) as image:
            if "A" in image.getbands() or "transparency" in image.info:
                self._alpha.append(str(path))
            if (pages := getattr(image, "n_frames", 1)) > 1:
                self._pages.append(f"{path} ({pages})")


class Video:
    """The frames of a video as a `Source`, named VIDEO/000000, VIDEO/000001, ..."""

    layout = RGB

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
        self.root = file.parent
        self.paths: Mapping[PurePath, PurePath] = {self.video[0]: PurePath(file.name)}

    def __len__(self) -> int:
        return max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[Frame]:
        """Decode the frames, once; a truncated video ends with a frame that has an error."""
        for number in itertools.count():
            decoded, pixels = self._capture.read()
            name = self.video[0] / f"{number:06d}"
            if not decoded:
                break
            yield Frame(name, name, np.ascontiguousarray(pixels[..., ::-1]))
        # Many headers are off by a frame, or estimated from duration and rate.
        missing = len(self) - number
        if number == 0 or missing > max(1, len(self) // 100):
            error = f"{self._file}: breaks off after {number} frames, its header names {len(self)}; copy it anew"
            yield Frame(name, name, UnreadableImageError(error))

    def ignored(self) -> list[str]:
        """See `Source`."""
        return []


def open_source(name: str, output: Path | None = None, layout: PixelLayout = RGB) -> Source:
    """Open the input that a user named.

    Args:
        name: a folder (with its subfolders), a pattern such as "data/*/left.png", an image or a video.
        output: the folder of results, whose earlier results are not read.
        layout: of the images that the model takes.

    Raises:
        InputError: there is no image or readable video.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        if layout != RGB:
            kind = ", ".join(layout.channels)
            raise InputError(f"{name}: a video has 8-bit colors, and the model takes {kind}; name such images")
        return Video(path)
    listing = list_images(name, output)
    if not listing.files:
        raise InputError(f"{name}: no images there; name a folder, a pattern in quotes, or a video")
    return ImageFiles(listing, layout)


def list_images(name: str, output: Path | None = None) -> Listing:
    """List the image files of a folder with its subfolders, or of a pattern.

    Args:
        name: in a folder files are images by their suffix; all files that a pattern matches are.
        output: see `open_source`.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return Listing([path], path.parent, Counter())
    if path.is_dir():
        return _list(path.rglob("*"), path, IMAGE_SUFFIXES, output)
    plain = itertools.takewhile(lambda part: not glob.has_magic(part), path.parent.parts)
    return _list(map(Path, glob.glob(str(path), recursive=True)), Path(*plain), (), output)


def _list(paths: Iterable[Path], root: Path, suffixes: tuple[str, ...], output: Path | None) -> Listing:
    results = [] if output is None else [output.resolve() / name for name in RESULTS]
    listing = Listing([], root, Counter())
    for path in sorted(paths):
        if path.is_dir() or not {path.resolve(), *path.resolve().parents}.isdisjoint(results):
            continue
        suffix = path.suffix.lower()
        if is_system_file(path.relative_to(root)):
            listing.others[_SYSTEM] += 1
        elif suffixes and suffix not in suffixes:
            listing.others[suffix or "without suffix"] += 1
        else:
            listing.files.append(path)
    return listing


SUFFIX = ".png"
"""Appended to the name of each result."""


def result_names(paths: Sequence[PurePath]) -> list[PurePath]:
    """Choose a unique name for the results of each image, without `SUFFIX`.

    It is the image's path without suffix if that is unique: `a` for `a.jpg`. Otherwise all images concerned keep their
    suffix (`a.jpg`, `a.png`), and those that still collide get a number (`a.JPG`, `a.jpg-2`). Names that differ only in
    case or in the encoding of accents collide, as on many disks.

    Args:
        paths: of the images, relative to their folder, all different.
    """
    taken = {_key(parent) for path in paths for parent in path.parents}
    levels = [0] * len(paths)
    while True:
        names = [_name(path, level) for path, level in zip(paths, levels, strict=True)]
        keys = [_key(name.with_name(name.name + SUFFIX)) for name in names]
        count = Counter(keys)
        colliding = [i for i, key in enumerate(keys) if count[key] > 1 or key in taken]
        if not colliding:
            return names
        for i in [i for i in colliding if not levels[i]] or _all_but_the_first(colliding, keys, taken):
            levels[i] += 1


def _name(path: PurePath, level: int) -> PurePath:
    if level == 0:
        return path.with_suffix("")
    return path if level == 1 else path.with_name(f"{path.name}-{level}")


def _all_but_the_first(colliding: Sequence[int], keys: Sequence[str], taken: Collection[str]) -> list[int]:
    seen, later = set(taken), []
    for i in colliding:
        if keys[i] in seen:
            later.append(i)
        seen.add(keys[i])
    return later


def _key(path: PurePath) -> str:
    return unicodedata.normalize("NFC", path.as_posix()).casefold()
