"""Which image each result in a folder is of, so that no run writes over another one's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath

from ..errors import InputError
from ..files import write_text
from .sources import MASKS, RECORD, Source


class Record:
    """`predicted.json` in a folder of results: the images' folder, and by the results' names the images below it.

    Attributes:
        earlier: the images of earlier runs, by the results' names.
    """

    earlier: dict[PurePath, PurePath]

    def __init__(self, folder: Path, source: Source) -> None:
        """Compare what a run will write with what is there.

        Args:
            folder: of results.
            source: of the run.

        Raises:
            InputError: there are results of other images of the same names, or of another folder.
        """
        self._file, self._folder = folder / RECORD, str(source.root.resolve())
        of, self.earlier = self._read()
        if self.earlier and of != self._folder:
            raise InputError(f"{folder}: has the results of {of}; give another --output to those of {self._folder}")
        _check_distinct(folder, source.places, self.earlier)
        _check_distinct(folder, self.earlier, source.places)
        self._places = {**self.earlier, **source.places}

    def write(self) -> None:
        """Write what the folder will hold after the run."""
        images = {name.as_posix(): place.as_posix() for name, place in self._places.items()}
        write_text(self._file, json.dumps({"folder": self._folder, "images": images}, indent=1))

    def _read(self) -> tuple[str, dict[PurePath, PurePath]]:
        if not self._file.is_file():
            return "", {}
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            return content["folder"], {PurePath(name): PurePath(place) for name, place in content["images"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self._file}: is no record of predictions; give another --output") from error


def _check_distinct(folder: Path, places: Mapping[PurePath, PurePath], others: Mapping[PurePath, PurePath]) -> None:
    for name, place in places.items():
        for taken in (name, *name.parents):  # the frames of a video have a folder of its name
            if others.get(taken, place) != place:
                raise InputError(
                    f"{folder / MASKS / name}: would be of {place} and of {others[taken]}; give one of them another "
                    "--output"
                )
