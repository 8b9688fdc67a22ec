"""Reading lists of images, in all formats in which the benchmarks' lists are published.

A line is one of:

- an id (`2007_000032`), put into the description's templates;
- the path of an image, relative to the data set's root
(`leftImg8bit/train/ulm/ulm_000140_000019_leftImg8bit.png`), or its name in the folder of the image template:
  the id is what the image template leaves open, and the mask follows from the id;
- the paths of an image and of its mask, with a tab or a space between them.

A line with a tab is divided there alone, so that what is before it may have spaces. Paths may be absolute, and a slash
at their start may stand for the root, but nothing may lead out of the root, except links in it. Blank lines are skipped
and the last line may lack its newline.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...utils.errors import InputError
from ...utils.files import read_text
from ..path_templates import ANY_SUFFIX, IMAGE_SUFFIXES, extract, fill

EXTRA = "extra"
"""The name of a list of images that are unlabeled in every split, beside the rest of its `train`."""


class Entry(NamedTuple):
    """One line of a list: an id and paths below the data set's root; `mask` is "" if unknown."""

    id: str
    image: str
    mask: str


def parse_line(line: str, image: str, mask: str, root: Path | None = None) -> Entry:
    """Read one line that is not blank.

    Args:
        line: the line, without its newline.
        image: template of image paths.
        mask: template of mask paths, "" where the data set has none.
        root: the absolute folder of the data set, needed for absolute paths.

    Raises:
        InputError: the line has more than two fields, or two of which the first is not an image, or one that leads out
            of the root.
    """
    fields = [field.strip() for field in line.split("\t") if field.strip()] if "\t" in line else line.split()
    if len(fields) > 2:
        raise InputError(
            f"{line.strip()!r} has {len(fields)} fields; write an id, an image or an image and its mask, with a tab "
            "between paths that have spaces"
        )
    name, *masks = (_below(field, root) for field in fields)
    is_image = PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
    if masks and not is_image:
        raise InputError(
            f"{line.strip()!r} is not an image {name!r} and its mask {fields[1]!r}; write a tab between paths that "
            "have spaces, and after an id that has some"
        )
    if not is_image:
        return Entry(name, fill(image, name), fill(mask, name))
    if masks:
        return Entry(extract(image, name) or _without_suffix(name), name, masks[0])
    folder = image.rpartition("/")[0]
    paths = [name] if "/" in name else [name, f"{folder}/{name}"]
    for path in paths:
        if image_id := extract(image, path):
            return Entry(image_id, path, fill(mask, image_id))
    return Entry(_without_suffix(name), name, "")


def read_list(file: Path, image: str, mask: str, root: Path | None = None) -> list[Entry]:
    """Read a list file.

    Args:
        file: a text file in any of the formats above, which may be mixed.
        image: template of image paths.
        mask: template of mask paths, "" where the data set has none.
        root: the absolute folder of the data set, needed for absolute paths.

    Raises:
        InputError: it is not text, or a line cannot be read.
    """
    entries = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entries.append(parse_line(line, image, mask, root))
        except InputError as error:
            raise InputError(f"{file}, line {number}: {error}") from None
    return entries


def _below(path: str, root: Path | None) -> str:
    """A path or an id, relative to the root."""
    leads_out = ".." in path.split("/")
    if not leads_out:
        if root is None or not path.startswith("/"):
            return path.removeprefix("./")
        # The second pair is for a root that one of the two names by way of a link.
        for place, top in ((Path(path), root), (Path(path).resolve(), root.resolve())):
            if place.is_relative_to(top):
                return place.relative_to(top).as_posix()
        leads_out = os.path.exists(path)
    if leads_out:
        raise InputError(
            f"{path!r} leads out of the root {root or 'of the data set'}; put the file, or a link to it, below, or set "
            "'root' to a folder that holds all"
        )
    return path.lstrip("/")


def _without_suffix(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


class SuffixResolver:
    """Finds the image that a path such as `images/7.*` stands for; each folder is read once."""

    def __init__(self, root: Path) -> None:
        """Set the folder.

        Args:
            root: what the paths are relative to.
        """
        self._root = root
        self._folders: dict[str, dict[str, list[str]]] = {}

    def resolve(self, path: str) -> str:
        """The path with its suffix; unchanged if it has one or there is no such file.

        Raises:
            InputError: there are several such files.
        """
        if not path.endswith(ANY_SUFFIX):
            return path
        folder, stem = os.path.split(path.removesuffix(ANY_SUFFIX))
        if folder not in self._folders:
            self._folders[folder] = self._read(folder)
        names = self._folders[folder].get(stem, [])
        if len(names) > 1:
            raise InputError(
                f"{self._root / path}: is {' or '.join(sorted(names))}; keep one of them there, or write the "
                "suffix into the template of the description, such as images/{id}.jpg"
            )
        return os.path.join(folder, names[0]) if names else path

    def _read(self, folder: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        if (self._root / folder).is_dir():
            for name in os.listdir(self._root / folder):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in IMAGE_SUFFIXES:
                    found[stem].append(name)
        return found
