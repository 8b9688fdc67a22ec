"""Many small files: written whole or not at all, by several processes, and not again where they are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ...utils.errors import InputError
from ...utils.files import replace_file, save_png
from ..image_io import UnreadableImageError, read_image, shown_size

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Size = tuple[int, int]  # width and height in pixels
_QUALITY = 80  # of JPEG


class MaskJob(NamedTuple):
    """A mask that must be at `target`, as large as `image`; `source` is what it can be made from, or None."""

    target: Path
    source: Any
    image: Path


@dataclass
class MaskCounts:
    """Masks that were made and that were there already, and what is wrong with the others."""

    made: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)


def write_masks(
    jobs: Sequence[MaskJob], read: Callable[[Any], NDArray[np.uint8]], workers: int, title: str
) -> MaskCounts:
    """Make the masks that are not there yet, broken or of another size than their images, as 8-bit grey PNG.

    Args:
        jobs: the masks; their folders are made where they are missing.
        read: a source -> (H, W) uint8 class ids; a module's function, since other processes run it.
        workers: number of processes.
        title: of the progress bar.
    """
    for folder in {job.target.parent for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    counts = MaskCounts()
    for made, problem in in_processes(partial(_write_mask, read), jobs, workers, title):
        if problem:
            counts.problems.append(problem)
        elif made:
            counts.made += 1
        else:
            counts.kept += 1
    return counts


def write_photos(
    jobs: Sequence[MaskJob], read: Callable[[Any], NDArray[np.uint8]], workers: int, title: str
) -> list[str]:
    """Make the images that are not there yet, or cannot be read, as JPEG.

    Args:
        jobs: whose `image` is to be made from `source`; their folders are made where they are missing.
        read: a source -> (H, W, 3) uint8 RGB; a module's function, since other processes run it.
        workers: number of processes.
        title: of the progress bar.

    Returns:
        what is wrong with those that could not be made.
    """
    for folder in {job.image.parent for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    return list(filter(None, in_processes(partial(_write_photo, read), jobs, workers, title)))


def in_processes(work: Callable[[_Item], _Result], items: Sequence[_Item], workers: int, title: str) -> list[_Result]:
    """Do `work` on each item in `workers` processes, with a progress bar.

    Args:
        work: a module's function, or a partial of one.
        items: its arguments.
        workers: number of processes.
        title: of the progress bar.

    Returns:
        the results in the order of the items.
    """
    chunk = max(1, min(64, len(items) // (4 * workers)))
    with ProcessPoolExecutor(workers) as pool:
        results = pool.map(work, items, chunksize=chunk)
        return list(tqdm(results, total=len(items), desc=title, unit="image"))


def _write_mask(read: Callable[[Any], NDArray[np.uint8]], job: MaskJob) -> tuple[bool, str]:
    there, wanted = _size_of_index_image(job.target), _size_of(job.image)
    if there and wanted in (None, there):
        return False, ""
    if job.source is None:
        wrong = _of_sizes(there, wanted) if there and wanted else "is missing, broken or a colour image"
        return False, f"{job.target}: {wrong}; unpack its archive again"
    try:
        mask = Image.fromarray(read(job.source))
    except InputError as error:
        return False, str(error)
    if wanted and wanted != mask.size:
        return False, f"{job.target}: {_of_sizes(mask.size, wanted)}, so it was not made; unpack the archives again"
    save_png(mask, job.target)
    return True, ""


def _write_photo(read: Callable[[Any], NDArray[np.uint8]], job: MaskJob) -> str:
    try:
        read_image(job.image)
        return ""
    except UnreadableImageError:
        pass
    try:
        photo = Image.fromarray(read(job.source))
    except InputError as error:
        return str(error)
    replace_file(job.image, lambda file: photo.save(file, format="JPEG", quality=_QUALITY))
    return ""


def _of_sizes(mask: _Size, image: _Size) -> str:
    return f"the mask is {mask[0]}x{mask[1]} (width x height), its image {image[0]}x{image[1]}"


def _size_of_index_image(file: Path) -> _Size | None:
    """None where there is no such image, whole."""
    try:
        with Image.open(file) as image:
            image.verify()  # the checksums, without decoding
            return image.size if image.mode in ("L", "P") else None
    except (OSError, SyntaxError, ValueError):
        return None


def _size_of(file: Path) -> _Size | None:
    """Of an image turned as its EXIF orientation says, from its header alone; None where there is no image."""
    try:
        with Image.open(file) as image:
            return shown_size(image)
    except (OSError, SyntaxError, ValueError):
        return None
