"""Writing many image files in several processes, atomically and only if missing."""

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
from ..image_header import shown_size
from ..image_io import UnreadableImageError, read_image

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Size = tuple[int, int]  # width and height in pixels
_QUALITY = 80  # of JPEG


class MaskJob(NamedTuple):
    """A mask to write to `target`, of the size of `image`, from `source`; None if the archive has the mask."""

    target: Path
    source: Any
    image: Path


@dataclass
class MaskCounts:
    """Numbers of masks that were made and that existed, and the problems of the others."""

    made: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)


def write_masks(
    jobs: Sequence[MaskJob], read: Callable[[Any], NDArray[np.uint8]], workers: int, title: str
) -> MaskCounts:
    """Write masks that are missing, broken or of another size than their images, as 8-bit gray PNG.

    Args:
        jobs: the masks; missing folders are created.
        read: a source -> (H, W) uint8 class ids; must be picklable.
        workers: number of processes.
        title: of the progress bar.
    """
    for folder in {job.target.parent for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    counts = MaskCounts()
    for made, problem in parallel_map(partial(_write_mask, read), jobs, workers, title):
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
    """Write images that are missing or cannot be read, as JPEG.

    Args:
        jobs: the `image` of each is made from its `source`; missing folders are created.
        read: a source -> (H, W, 3) uint8 RGB; must be picklable.
        workers: number of processes.
        title: of the progress bar.

    Returns:
        the problems of those that could not be made.
    """
    for folder in {job.image.parent for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    return list(filter(None, parallel_map(partial(_write_photo, read), jobs, workers, title)))


def parallel_map(work: Callable[[_Item], _Result], items: Sequence[_Item], workers: int, title: str) -> list[_Result]:
    """Map `work` over items in several processes, with a progress bar.

    Args:
        work: must be picklable.
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
        wrong = _of_sizes(there, wanted) if there and wanted else "is missing, broken or a color image"
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
    """The size of a complete index image; None if it is missing, broken or something else."""
    try:
        with Image.open(file) as image:
            image.verify()  # the checksums, without decoding
            return image.size if image.mode in ("L", "P") else None
    except (OSError, SyntaxError, ValueError):
        return None


def _size_of(file: Path) -> _Size | None:
    """The size of an image, after its EXIF orientation, from its header only; None if there is no image."""
    try:
        with Image.open(file) as image:
            return shown_size(image)
    except (OSError, SyntaxError, ValueError):
        return None
