"""Formats of which a file holds the labels of many images: where in it those of each image are."""

from __future__ import annotations

import hashlib
import json
import os
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...utils.errors import InputError
from ..file_cache import cache_file, file_state, load_arrays, store_arrays
from .label_format import LabelSource, ListedImage
from .shape_format import ShapeFormat
from .shapes import LabeledImage

if TYPE_CHECKING:
    from ..datasets.folder import Description

_VERSION = 1  # of the stored index; part of its key


class FileIndex(NamedTuple):
    """What a file holds: names of images, where what it says about each lies, and what it says about all.

    Spans are arrays: those of a million annotations take 16 MB.

    Attributes:
        names: of the images that the file labels, as it has them.
        ends: number of the spans of images up to each one.
        spans: (N, 2) first byte and byte after the last of values in the file.
        common: what the file says about all of them, as JSON has it.
    """

    names: list[str]
    ends: np.ndarray
    spans: np.ndarray
    common: Any

    @classmethod
    def of_single(cls, entries: Sequence[tuple[str, int, int]], common: Any) -> FileIndex:
        """Of a file that has one value for each image: its name, first byte and byte after the last."""
        spans = np.array([span for _, *span in entries], dtype=np.int64).reshape(-1, 2)
        return cls([name for name, _, _ in entries], np.arange(1, len(entries) + 1), spans, common)

    def spans_of(self, index: int) -> list[list[int]]:
        """The spans of an image."""
        start = self.ends[index - 1] if index else 0
        return self.spans[start : self.ends[index]].tolist()


class Place(NamedTuple):
    """Where the labels of an image are.

    Attributes:
        file: number of the file.
        image: number of the image in it.
    """

    file: int
    image: int


class SetFileFormat(ShapeFormat):
    """Labels of which a file holds those of many images. An image that is in none is unlabeled.

    What a file calls an image is a path from the file's folder, or the end of the image's path. If it is neither, name
    and suffix decide, else the name alone; unless there is another image at that path.
    """

    def __init__(self, description: Description, *, files: object, **settings: Any) -> None:
        """Check the settings.

        Args:
            description: of the data set.
            files: a path below the data set's root, or a list of them.
            settings: of `ShapeFormat`.

        Raises:
            InputError: a setting is wrong, or a file is missing.
        """
        super().__init__(description, **settings)
        names = files if isinstance(files, list) else [files]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise InputError(f"{self.where}: 'files' is {files!r}; write a path below the root, or a list of them")
        self.files = [description.root / str(name) for name in names]
        for file in self.files:
            if not file.is_file():
                raise InputError(f"{file}: is missing; put it there, or change 'files' of {self.where}")
        self._found: dict[tuple[int, ...], str] = {}  # the file of an image that is in a list, by its spans

    @abstractmethod
    def index(self, file: Path) -> FileIndex:
        """Find the images of a file.

        Raises:
            InputError: it cannot be read.
            KeyError, TypeError, ValueError, AttributeError: it is not what the tool writes.
        """

    @abstractmethod
    def categories(self, file: Path, common: Any) -> Iterable[str]:
        """The categories of a file's shapes.

        Args:
            file: that holds them.
            common: of its index.

        Raises:
            InputError: they cannot be told.
        """

    @abstractmethod
    def parse_image(self, file: Path, name: str, values: Iterator[bytes], common: Any) -> LabeledImage:
        """The shapes of an image.

        Args:
            file: that holds them.
            name: what the file calls the image.
            values: what lies in the spans of the image.
            common: of the file's index.

        Raises:
            InputError: they are wrong.
            KeyError, TypeError, ValueError, AttributeError: they are not what the tool writes.
        """

    def category_names(self, images: Iterable[ListedImage]) -> list[str]:
        """See `ShapeFormat`; those of all images, in the order of the files."""
        indices = zip(self.files, self._indices, strict=True)
        return list(dict.fromkeys(name for file, index in indices for name in self.categories(file, index.common)))

    def unmatched(self, images: Iterable[ListedImage]) -> list[str]:
        """The labels that are of none of the images."""
        places = filter(None, map(self._place, images))
        return self._others({self._spans(place) for place in places})

    def find(self, image: ListedImage) -> LabelSource:
        """See `LabelFormat`."""
        place = self._place(image)
        if place is None:
            return LabelSource(f"labels in {', '.join(map(str, self.files))}", None)
        known = self._found.setdefault(self._spans(place), image.file)
        if os.path.realpath(known) != os.path.realpath(image.file):
            raise InputError(
                f"{self._name(place)}: fits {known} and {image.file}; name images by paths there that tell them apart"
            )
        return LabelSource(self._name(place), (file_state(str(self.files[place.file])), place))

    def parse(self, image: ListedImage) -> LabeledImage:
        """See `ShapeFormat`."""
        place = self._place(image)
        if place is None:
            raise ValueError(f"{image.file} has no labels")
        file, index = self.files[place.file], self._indices[place.file]

        def values() -> Iterator[bytes]:
            with file.open("rb") as stream:
                for start, end in index.spans_of(place.image):
                    stream.seek(start)
                    yield stream.read(end - start)

        return self.parse_image(file, index.names[place.image], values(), index.common)

    def notes(self) -> list[str]:
        """Images that are labeled and in no list."""
        others = self._others(self._found)
        if not others:
            return []
        return [
            f"{others[0]}: is in no list, as {len(others)} of the labeled images; list them, and put their files there "
            "if they are missing"
        ]

    def _others(self, spans: Collection[tuple[int, ...]]) -> list[str]:
        """The names of all labeled images but some, which are given by their spans."""
        counts = [len(index.names) for index in self._indices]
        places = (Place(number, image) for number, count in enumerate(counts) for image in range(count))
        names = {self._spans(place): self._name(place) for place in places}
        return [name for own, name in names.items() if own not in spans]

    def _spans(self, place: Place) -> tuple[int, ...]:
        """What tells an image apart from all others, also where the file has several names for it."""
        return place.file, *self._indices[place.file].spans_of(place.image)[0]

    def _name(self, place: Place) -> str:
        return f"{self.files[place.file]}, image {self._indices[place.file].names[place.image]!r}"

    @cached_property
    def _indices(self) -> list[FileIndex]:
        indices = [self._load_index(file) for file in self.files]
        for file, index in zip(self.files, indices, strict=True):
            self.class_ids(self.categories(file, index.common), str(file))  # before anything is drawn
        return indices

    def _load_index(self, file: Path) -> FileIndex:
        key = hashlib.sha256(repr((_VERSION, self.version, type(self).__name__, file_state(str(file)))).encode())
        stored = cache_file(f"label_index_{key.hexdigest()[:32]}.npz")
        arrays = load_arrays(stored, ("text", "ends", "spans"))
        if arrays is not None:
            names, common = json.loads(arrays["text"].tobytes())
            return FileIndex(names, arrays["ends"], arrays["spans"], common)
        try:
            index = self.index(file)
        except InputError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self.not_of_tool(str(file), error) from error
        text = np.frombuffer(json.dumps([index.names, index.common]).encode(), dtype=np.uint8)
        store_arrays(stored, {"text": text, "ends": index.ends, "spans": index.spans})
        return index

    @cached_property
    def _by_stem(self) -> dict[str, list[Place]]:
        places = defaultdict(list)
        for number, index in enumerate(self._indices):
            for position, name in enumerate(index.names):
                places[_path(name).stem].append(Place(number, position))
        return places

    def _place(self, image: ListedImage) -> Place | None:
        """Where the labels of an image are; None if there are none.

        Raises:
            InputError: there are several.
        """
        best: list[Place] = []
        best_match = 0
        for place in self._by_stem.get(Path(image.file).stem, ()):
            match = self._match(Path(image.file), place)
            if match > best_match:
                best, best_match = [], match
            if match and match == best_match:
                best.append(place)
        if len(set(map(self._spans, best))) > 1:
            raise InputError(
                f"{' and '.join(map(self._name, best[:2]))}: both label {image.file}; remove one of them, or name "
                "images by paths that tell them apart"
            )
        return best[0] if best else None

    def _match(self, image: Path, place: Place) -> int:
        """How well what a file calls an image fits one of the same stem: 3 the path, 2 the name, 1 the stem, 0 not."""
        name = _path(self._indices[place.file].names[place.image])
        if self.files[place.file].parent / name == image or image.parts[-len(name.parts) :] == name.parts:
            return 3
        folders = [folder for folder in image.parents if folder.is_relative_to(self.description.root)]
        if any((folder / name).is_file() for folder in (self.files[place.file].parent, *folders)):
            return 0
        return 2 if name.name == image.name else 1


def _path(name: str) -> PurePosixPath:
    """A name as a path, also of a tool on Windows."""
    return PurePosixPath(name.replace("\\", "/"))
