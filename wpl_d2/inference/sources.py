"""The images to predict: of a folder, of a list, of a pattern, of a bucket, or the frames of a video."""

from __future__ import annotations

import contextlib
import copy
import glob
import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePath
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from PIL import Image

from ..data import UnreadableImageError, read_image
from ..data.file_cache import file_state
from ..data.pixel_values import RGB, PixelLayout
from ..data.windows import huge_size
from ..utils.buckets import Bucket, is_url
from ..utils.errors import InputError
from ..utils.files import is_system_file, read_text
from .huge_images import HugeImage
from .result_names import result_names

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".webm")
MASKS, COCO_MASKS, LABELME_MASKS, OVERLAYS = "masks", "masks.json", "labelme", "overlays"
CONFIDENCE, PROBABILITIES = "confidence", "probabilities"
BOXES, INDEX = "boxes.json", "predicted.json"
PARTS = "predicted.json.parts"
RESULTS = (MASKS, COCO_MASKS, LABELME_MASKS, OVERLAYS, CONFIDENCE, PROBABILITIES, BOXES, INDEX, PARTS)
"""Folders and files of results, which are not read as input."""
_SYSTEM, _ALPHA = "hidden or system", "alpha"


class Frame(NamedTuple):
    """One image of a source.

    Attributes:
        name: path of its results, relative and without suffix.
        file: path of the image, relative to the source's root; of a video's frame, its name.
        image: of `read_image`; or what windows of it can be read from; or the error that it cannot be read.
        ignored: what of the file was not read: "alpha", or the number of its pictures.
    """

    name: PurePath
    file: PurePath
    image: np.ndarray | HugeImage | UnreadableImageError
    ignored: tuple[str, ...] = ()


class Source(Protocol):
    """An iterable of images.

    Attributes:
        root: the folder that holds them all.
        place: its full path, or its URL.
        layout: of the images' pixels.
        paths: the images' or video's paths relative to `root`, by the name of the results.
    """

    root: Path
    place: str
    layout: PixelLayout
    paths: Mapping[PurePath, PurePath]

    @property
    def video(self) -> tuple[PurePath, float] | None:
        """Name and frames per second of the video; None for single images."""

    def __iter__(self) -> Iterator[Frame]:
        """Read the images one by one."""

    def __len__(self) -> int:
        """The number of images, as far as a video's header is right."""

    def parts(self, length: int) -> Sequence[Source]:
        """Divide it into sources of `length` images each; see `wpl_d2.inference.engines`."""

    def facts(self) -> tuple[object, ...]:
        """What the results of its images depend on, but for the model: as of `wpl_d2.inference.engines.digest`."""

    def local(self) -> AbstractContextManager[Source]:
        """The same images as files of this machine, inside of the context."""

    def ignored(self) -> list[str]:
        """Describe the input that was ignored: files of other types, and what was noted."""

    def note_ignored(self, file: PurePath, what: Sequence[str]) -> None:
        """Remember what was ignored of an image; args as of its `Frame`."""


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
        self.place = str(listing.root.resolve())
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
                yield Frame(name, path, image, _find_ignored(file))

    def parts(self, length: int) -> list[ImageFiles]:
        """See `Source`."""
        names = iter(self.paths)
        return [self._part(own) for own in iter(lambda: list(itertools.islice(names, length)), [])]

    def _part(self, names: Sequence[PurePath]) -> ImageFiles:
        part = copy.copy(self)
        part.paths = {name: self.paths[name] for name in names}
        part._others = Counter()  # which is not to be sent along
        return part

    def facts(self) -> tuple[object, ...]:
        """See `Source`."""
        return self.place, [(str(name), str(path), self._state(path)) for name, path in self.paths.items()]

    def _state(self, path: PurePath) -> object:
        return file_state(str(self.root / path))

    def local(self) -> AbstractContextManager[ImageFiles]:
        """See `Source`."""
        return contextlib.nullcontext(self)

    def note_ignored(self, file: PurePath, what: Sequence[str]) -> None:
        """See `Source`."""
        for kind in what:
            if kind == _ALPHA:
                self._alpha.append(str(file))
            else:
                self._pages.append(f"{file} ({kind})")

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


def _find_ignored(file: Path) -> tuple[str, ...]:
    """As of `Frame`."""
    found = []
    # The first picture could be read; the rest of the file may be broken in any way.
    with contextlib.suppress(Exception), Image.open(file) as image:
        if "A" in image.getbands() or "transparency" in image.info:
            found.append(_ALPHA)
        if (pages := getattr(image, "n_frames", 1)) > 1:
            found.append(str(pages))
    return tuple(found)


class BucketImages(ImageFiles):
    """Image files in a bucket: those of a part are fetched before it is read."""

    def __init__(
        self, bucket: Bucket, states: Mapping[PurePath, str], others: Counter[str], layout: PixelLayout
    ) -> None:
        """Name the images.

        Args:
            bucket: its folder that holds them all.
            states: of the images, by their paths in the folder, as of `Bucket.states`.
            others: number of other files by suffix.
            layout: of the images' pixels.
        """
        super().__init__(Listing([Path(path) for path in states], Path(), others), layout)
        self.place = bucket.url
        self._states = {str(path): state for path, state in states.items()}

    def _part(self, names: Sequence[PurePath]) -> ImageFiles:
        part = super()._part(names)
        part._states = {str(path): self._states[str(path)] for path in part.paths.values()}  # type: ignore[attr-defined]
        return part

    def _state(self, path: PurePath) -> object:
        return self._states[str(path)]

    @contextlib.contextmanager
    def local(self) -> Iterator[ImageFiles]:
        """See `Source`."""
        with tempfile.TemporaryDirectory(prefix="wpl_d2_") as folder:
            Bucket(self.place).fetch(self.paths.values(), Path(folder))
            part = copy.copy(self)
            part.root = Path(folder)
            yield part

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            if isinstance(frame.image, UnreadableImageError):
                told = str(frame.image).replace(str(self.root), self.place)
                frame = frame._replace(image=UnreadableImageError(told))
            yield frame


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
        self.place = str(file.parent.resolve())
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

    def parts(self, length: int) -> list[Video]:
        """See `Source`; it is one stream, and cannot be divided."""
        return [self]

    def facts(self) -> tuple[object, ...]:
        """See `Source`."""
        return file_state(str(self._file))

    def local(self) -> AbstractContextManager[Video]:
        """See `Source`."""
        return contextlib.nullcontext(self)

    def note_ignored(self, file: PurePath, what: Sequence[str]) -> None:
        """See `Source`; of a frame all is read."""

    def ignored(self) -> list[str]:
        """See `Source`."""
        return []


def open_source(name: str, output: str | Path | None = None, layout: PixelLayout = RGB) -> Source:
    """Open the input that a user named.

    Args:
        name: a folder (with its subfolders), also in a bucket, a pattern such as "data/*/left.png", a list (see
            `read_list`), an image or a video.
        output: the folder of results, whose earlier results are not read.
        layout: of the images that the model takes.

    Raises:
        InputError: there is no image or readable video.
    """
    if is_url(name):
        return _open_bucket(name, output, layout)
    path = Path(name).expanduser()
    if path.suffix.lower() == ".txt" and path.is_file():
        return read_list(path, layout)
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        if layout != RGB:
            kind = ", ".join(layout.channels)
            raise InputError(f"{name}: a video has 8-bit colors, and the model takes {kind}; name such images")
        return Video(path)
    listing = list_images(name, output)
    if not listing.files:
        raise InputError(f"{name}: no images there; name a folder, a pattern in quotes, or a video")
    return ImageFiles(listing, layout)


def _open_bucket(url: str, output: str | Path | None, layout: PixelLayout) -> Source:
    bucket, others = Bucket(url), Counter[str]()
    results = [PurePath(str(output).rstrip("/"), name) for name in RESULTS]
    states: dict[PurePath, str] = {}
    for path, state in bucket.files().items():
        if not path.name:
            raise InputError(f"{url}: is a file; give its folder, or a list (.txt) that names it")
        place = PurePath(bucket.url, path)
        if not {place, *place.parents}.isdisjoint(results):
            continue
        if kind := _other_kind(path, IMAGE_SUFFIXES):
            others[kind] += 1
        else:
            states[path] = state
    if not states:
        raise InputError(f"{url}: no images there; name a folder of the bucket")
    return BucketImages(bucket, states, others, layout)


def read_list(file: Path, layout: PixelLayout = RGB) -> ImageFiles:
    """The images that a text file names, one a line: paths from its own folder on, or full ones, or URLs of a bucket.

    Raises:
        InputError: it names none, or one twice, or both files and URLs.
    """
    names = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    is_of_bucket = any(map(is_url, names))
    files = [] if is_of_bucket else sorted(Path(os.path.abspath(file.parent / name)) for name in names)
    if not names or len({*(files or names)}) < len(names):
        raise InputError(f"{file}: names {'an image twice' if names else 'no image'}; give each image a line")
    if is_of_bucket:
        return _open_urls(file, names, layout)
    root = Path(os.path.commonpath([path.parent for path in files]))
    return ImageFiles(Listing(files, root, Counter()), layout)


def _open_urls(file: Path, urls: Sequence[str], layout: PixelLayout) -> BucketImages:
    services = {url.partition("://")[0] for url in urls}
    places = [url.rpartition("://")[2] for url in urls]
    common = os.path.commonpath([os.path.dirname(place) for place in places])
    if len(services) > 1 or not common:
        raise InputError(f"{file}: names images of several places; make a list for each bucket")
    bucket = Bucket(f"{services.pop()}://{common}")
    states = bucket.states(sorted(PurePath(place).relative_to(common) for place in places))
    return BucketImages(bucket, states, Counter(), layout)


def list_images(name: str, output: str | Path | None = None) -> Listing:
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


def _list(paths: Iterable[Path], root: Path, suffixes: tuple[str, ...], output: str | Path | None) -> Listing:
    results = [] if output is None else [Path(output).resolve() / name for name in RESULTS]
    listing = Listing([], root, Counter())
    for path in sorted(paths):
        if path.is_dir() or not {path.resolve(), *path.resolve().parents}.isdisjoint(results):
            continue
        if kind := _other_kind(path.relative_to(root), suffixes):
            listing.others[kind] += 1
        else:
            listing.files.append(path)
    return listing


def _other_kind(path: PurePath, suffixes: tuple[str, ...]) -> str:
    """What a file is, relative to the listed folder, if it is no image; "" if it is one."""
    suffix = path.suffix.lower()
    if is_system_file(path):
        return _SYSTEM
    return (suffix or "without suffix") if suffixes and suffix not in suffixes else ""
