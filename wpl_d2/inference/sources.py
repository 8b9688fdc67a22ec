"""What to predict: a folder of images, those that a pattern matches, or the frames of a video."""

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
from ..utils.errors import InputError
from ..utils.files import is_system_file

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".webm")
MASKS, OVERLAYS = "masks", "overlays"
"""Folders of results, which are no input."""
BOXES, INDEX = "boxes.json", "predicted.json"
"""Files of results, which are none either."""
_LEFTOVER = "hidden or system"


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
    """Images in turn.

    Attributes:
        root: the folder that holds all of them.
        places: below it, by the name of the results; a video's frames have its name and their number.
    """

    root: Path
    places: Mapping[PurePath, PurePath]

    @property
    def video(self) -> tuple[PurePath, float] | None:
        """The name of the video that the images are of, and its frames a second; None for single images."""

    def __iter__(self) -> Iterator[Frame]:
        """The images."""

    def __len__(self) -> int:
        """Their number, which a video's header may have wrong."""

    def left_out(self) -> list[str]:
        """In words what was there and is in no image; known when all images were read."""


class Listing(NamedTuple):
    """Image files.

    Attributes:
        files: in order.
        root: the folder that holds them all.
        others: how many files beside them are none, by suffix.
    """

    files: list[Path]
    root: Path
    others: Counter[str]


class ImageFiles:
    """Image files, named by their places below the folder that they have in common (see `result_names`)."""

    video: None = None

    def __init__(self, listing: Listing) -> None:
        """Name the files.

        Args:
            listing: of them.
        """
        self.root = listing.root
        places = [PurePath(file.relative_to(self.root)) for file in listing.files]
        self.places: Mapping[PurePath, PurePath] = dict(zip(result_names(places), places, strict=True))
        self._others = listing.others
        self._alpha: list[str] = []
        self._pages: list[str] = []

    def __len__(self) -> int:
        """The number of files."""
        return len(self.places)

    def __iter__(self) -> Iterator[Frame]:
        """Read one after the other."""
        for name, place in self.places.items():
            file = self.root / place
            try:
                image = read_image(file)
            except UnreadableImageError as error:
                yield Frame(name, place, error)
            except Exception as error:  # one broken file, in whatever way, is no reason to lose the others
                yield Frame(name, place, UnreadableImageError(f"{file}: cannot be read ({error}); restore the file"))
            else:
                self._note_dropped(file, place)
                yield Frame(name, place, image)

    def left_out(self) -> list[str]:
        """See `Source`."""
        others = self._others.copy()
        hidden = others.pop(_LEFTOVER, 0)
        kinds = ", ".join(f"{suffix} {count}" for suffix, count in sorted(others.items()))
        told = [f"{others.total()} files of other kinds ({kinds})"] if others else []
        told += [f"{hidden} {_LEFTOVER} files"] if hidden else []
        told += [f"the alpha channel of {len(self._alpha)} images, such as {self._alpha[0]}"] if self._alpha else []
        pages = "all but the first picture of"
        return told + ([f"{pages} {len(self._pages)} files, such as {self._pages[0]}"] if self._pages else [])

    def _note_dropped(self, file: Path, place: PurePath) -> None:
        # The first picture was read; in what is behind it the file may be broken in any way.
        with contextlib.suppress(Exception), Image.open(file) as image:
            if "A" in image.getbands() or "transparency" in image.info:
                self._alpha.append(str(place))
            if (pages := getattr(image, "n_frames", 1)) > 1:
                self._pages.append(f"{place} ({pages})")


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
        self.root = file.parent
        self.places: Mapping[PurePath, PurePath] = {self.video[0]: PurePath(file.name)}

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

    def left_out(self) -> list[str]:
        """See `Source`."""
        return []


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
    listing = image_files(given, without)
    if not listing.files:
        raise InputError(f"{given}: no images there; name a folder, a pattern in quotes, or a video")
    return ImageFiles(listing)


def image_files(given: str, without: Path | None = None) -> Listing:
    """The image files of a folder with its subfolders, or of a pattern.

    Args:
        given: in a folder the suffix tells what is an image; what a pattern matches is taken for one.
        without: see `open_source`.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return Listing([path], path.parent, Counter())
    if path.is_dir():
        return _list(path.rglob("*"), path, IMAGE_SUFFIXES, without)
    plain = itertools.takewhile(lambda part: not glob.has_magic(part), path.parent.parts)
    return _list(map(Path, glob.glob(str(path), recursive=True)), Path(*plain), (), without)


def _list(found: Iterable[Path], root: Path, suffixes: tuple[str, ...], without: Path | None) -> Listing:
    """Those with one of the suffixes, if there are some, and no leftovers of the system's or of editors."""
    results = [] if without is None else [without.resolve() / name for name in (MASKS, OVERLAYS, BOXES, INDEX)]
    listing = Listing([], root, Counter())
    for path in sorted(found):
        if path.is_dir() or not {path.resolve(), *path.resolve().parents}.isdisjoint(results):
            continue
        suffix = path.suffix.lower()
        if is_system_file(path.relative_to(root)):
            listing.others[_LEFTOVER] += 1
        elif suffixes and suffix not in suffixes:
            listing.others[suffix or "without suffix"] += 1
        else:
            listing.files.append(path)
    return listing


SUFFIX = ".png"
"""Of each result; a name gets it at its end."""


def result_names(places: Sequence[PurePath]) -> list[PurePath]:
    """A name for the results of each image, without `SUFFIX`.

    It is the image's own, without suffix where that is unique: `a` for `a.jpg`. Where it is not, all concerned keep
    their suffix (`a.jpg`, `a.png`), and those that are still no different get a number (`a.JPG`, `a.jpg-2`). Names that
    differ only in case, or in how an accent is encoded, are one on many disks, and so they are here.

    Args:
        places: of the images below their folder, all different.
    """
    taken = {_key(parent) for place in places for parent in place.parents}
    levels = [0] * len(places)
    while True:
        names = [_name(place, level) for place, level in zip(places, levels, strict=True)]
        keys = [_key(name.with_name(name.name + SUFFIX)) for name in names]
        count = Counter(keys)
        wrong = [i for i, key in enumerate(keys) if count[key] > 1 or key in taken]
        if not wrong:
            return names
        for i in [i for i in wrong if not levels[i]] or _all_but_the_first(wrong, keys, taken):
            levels[i] += 1


def _name(place: PurePath, level: int) -> PurePath:
    if level == 0:
        return place.with_suffix("")
    return place if level == 1 else place.with_name(f"{place.name}-{level}")


def _all_but_the_first(wrong: Sequence[int], keys: Sequence[str], taken: Collection[str]) -> list[int]:
    seen, later = set(taken), []
    for i in wrong:
        if keys[i] in seen:
            later.append(i)
        seen.add(keys[i])
    return later


def _key(path: PurePath) -> str:
    return unicodedata.normalize("NFC", path.as_posix()).casefold()
