"""The files of paths whose suffix a description leaves open."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from ...errors import InputError
from .lists import ANY_SUFFIX, IMAGE_SUFFIXES


class OpenSuffixes:
    """Finds the image that a path such as `images/7.*` stands for; each folder is read once."""

    def __init__(self, root: Path) -> None:
        """Begin.

        Args:
            root: the folder that the paths are below.
        """
        self._root = root
        self._folders: dict[str, dict[str, list[str]]] = {}

    def find(self, path: str) -> str:
        """The path with its suffix; as it is where it has one, or where there is no such file.

        Raises:
            InputError: there is more than one.
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
