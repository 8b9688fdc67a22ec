"""Labels of any format as index masks in the cache, from which everything reads them.

Each is made once, as PNG of class ids with the boxes of its instances, under a digest of the settings and of the state
of its source. Files are whole or absent: what a killed process leaves is used by the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...structures import IGNORE
from ...utils.errors import InputError
from ...utils.files import UnwritableError
from ...utils.threads import in_threads
from ..file_cache import cache_file, locked
from ..index_masks import write_index_mask
from .label_format import LabelFormat, ListedImage

_VERSION = 1  # of how labels are stored


def attach_labels(labels: LabelFormat, records: Sequence[dict[str, Any]], images: Sequence[ListedImage]) -> None:
    """Add the labels of their images to dataset dicts, in place; those that are not in the cache are put there.

    One process of a machine does that, while others that need the same labels wait.

    Args:
        labels: reads them.
        records: dataset dicts. Added: `sem_seg_missing`, what would hold the labels, where there are none. Else
            `sem_seg_file_name`, an index mask in the cache; `sem_seg_source`, where the user has the labels;
            `sem_seg_ignore`; `sem_seg_error` if they cannot be read; `box_file_name` if they hold instances, whose
            boxes `read_boxes` takes from there.
        images: theirs.

    Raises:
        InputError: the cache cannot be written, or no labels can be read at all.
    """
    folder = cache_file("labels") / _settings_digest(labels)
    sources = [labels.find(image) for image in images]
    files = [folder / f"{_digest(source.state, image)}.png" for source, image in zip(sources, images, strict=True)]
    wanted = {
        file: image
        for file, source, image in zip(files, sources, images, strict=True)
        if source.state is not None and not file.is_file()
    }
    errors = _convert(labels, folder, wanted) if wanted else {}
    for record, source, file in zip(records, sources, files, strict=True):
        if source.state is None:
            if source.name:
                record["sem_seg_missing"] = source.name
            continue
        record |= {"sem_seg_file_name": str(file), "sem_seg_source": source.name, "sem_seg_ignore": IGNORE}
        if file in errors:
            record["sem_seg_error"] = errors[file]
        if labels.has_instances:
            record["box_file_name"] = str(file)


def _settings_digest(labels: LabelFormat) -> str:
    description = labels.description
    settings = sorted((str(key), value) for key, value in description.labels.items())
    others = description.classes, description.colors, description.ignore, description.exif
    return _digest(_VERSION, labels.version, settings, others)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _convert(labels: LabelFormat, folder: Path, wanted: Mapping[Path, ListedImage]) -> dict[Path, str]:
    """Make index masks; the messages for those that cannot be made."""
    try:
        with locked(folder / "lock"):
            for unfinished in folder.glob(".*.partial"):
                unfinished.unlink()
            missing = [item for item in wanted.items() if not item[0].is_file()]
            title = f"{labels.description.name}: labels to index masks"
            done: Iterable[str] = in_threads(partial(_convert_one, labels), missing, title)
            return {file: error for (file, _), error in zip(missing, done, strict=True) if error}
    except UnwritableError as error:
        raise UnwritableError(
            f"{error}; or set WPL_D2_CACHE to a folder elsewhere: labels of the format "
            f"{labels.description.labels['format']} are trained on from there"
        ) from error


def _convert_one(labels: LabelFormat, item: tuple[Path, ListedImage]) -> str:
    file, image = item
    try:
        found = labels.read(image)
    except InputError as error:
        return str(error)
    write_index_mask(file, found.mask, found.boxes, found.box_classes)
    return ""
