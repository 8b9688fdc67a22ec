"""Reading files to their last pixel before they are needed: a broken one shall not stop a run at its end.

What passed is remembered, so that only new and changed files are read at the next start.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from detectron2.utils import comm
from tqdm import tqdm

from ..structures import IGNORE
from ..utils.errors import InputError
from .file_cache import cache_file, file_state, load_arrays, store_arrays
from .image_io import read_record
from .label_statistics import count_labels
from .mappers import read_labels

_VERSION = 1  # of what is remembered, and of what it takes to pass
_DIGEST = 16  # bytes
_MOST_THREADS = 16
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

Records = Sequence[dict[str, Any]]


class VerifiedFiles:
    """Images and masks that were read whole, with the pixels of each class, in one small file for each data set."""

    def __init__(self, dataset: str, num_classes: int) -> None:
        """Read what earlier runs remembered.

        Args:
            dataset: a name or a path that is the data set's alone.
            num_classes: C, of the masks.
        """
        self.num_classes = num_classes
        key = repr((_VERSION, dataset, num_classes)).encode()
        self._file = cache_file(f"verified_{hashlib.sha256(key).hexdigest()[:32]}.npz")
        self._new = False
        stored = load_arrays(self._file, ("files", "pixels"))
        self._known: dict[bytes, tuple[bytes, np.ndarray]] = {}
        if stored is not None:
            rows = (row.tobytes() for row in stored["files"])
            self._known = {
                row[:_DIGEST]: (row[_DIGEST:], pixels) for row, pixels in zip(rows, stored["pixels"], strict=True)
            }

    def find(self, identity: bytes) -> np.ndarray | None:
        """The (C + 1,) label counts of an image that passed (see `identify`), None if it did not."""
        state, pixels = self._known.get(identity[:_DIGEST], (b"", None))
        return pixels if state == identity[_DIGEST:] else None

    def add(self, identity: bytes, pixels: np.ndarray) -> None:
        """Remember that an image passed."""
        self._known[identity[:_DIGEST]] = identity[_DIGEST:], pixels
        self._new = True

    def store(self) -> None:
        """Write what is new to the file, which is whole or absent."""
        if not self._new:
            return
        files = b"".join(key + state for key, (state, _) in self._known.items())
        pixels = np.array([pixels for _, pixels in self._known.values()], dtype=np.uint32)
        store_arrays(self._file, {"files": np.frombuffer(files, np.uint8).reshape(-1, 2 * _DIGEST), "pixels": pixels})
        self._new = False


def verify(records: Records, passed: VerifiedFiles, title: str) -> tuple[np.ndarray, list[str]]:
    """Read the images of a list, and their masks, to the last pixel, in threads and with a progress bar.

    Args:
        records: dataset dicts; those without `sem_seg_file_name` have an image alone.
        passed: what need not be read again; what is read is added, also if this is interrupted.
        title: of the progress bar.

    Returns:
        (C + 1,) int64 pixels of each class and, last, of none in all masks, and what is wrong with the others.
    """
    total = np.zeros(passed.num_classes + 1, dtype=np.int64)
    problems: list[str] = []
    unread: list[tuple[bytes, dict[str, Any]]] = []
    for record in records:
        identity = identify(record)
        known = passed.find(identity)
        if known is None:
            unread.append((identity, record))
        else:
            total += known

    def examine(item: tuple[bytes, dict[str, Any]]) -> np.ndarray | InputError:
        return _examine(item[1], passed.num_classes)

    try:
        for (identity, _), found in zip(unread, _in_threads(examine, unread, title), strict=True):
            if isinstance(found, InputError):
                problems.append(str(found))
            else:
                passed.add(identity, found)
                total += found
    finally:
        passed.store()
    return total, problems


def identify(record: dict[str, Any]) -> bytes:
    """Digests of where an image and its mask are and how they are read, and of their sizes and times of change."""
    mask = record.get("sem_seg_file_name", "")
    image_path, *image_state = file_state(record["file_name"])
    mask_path, *mask_state = file_state(mask) if mask else ("", 0, 0)
    place = image_path, mask_path, record.get("sem_seg_ignore", IGNORE), record.get("exif")
    return b"".join(
        hashlib.blake2b(repr(part).encode(), digest_size=_DIGEST).digest()
        for part in (place, (*image_state, *mask_state))
    )


def _examine(record: dict[str, Any], num_classes: int) -> np.ndarray | InputError:
    try:
        size = read_record(record).shape[:2]
        if "sem_seg_file_name" not in record:
            return np.zeros(num_classes + 1, dtype=np.int64)
        return count_labels(read_labels(record, size, num_classes), num_classes)
    except InputError as error:
        return error


def _in_threads(work: Callable[[_Item], _Result], items: Sequence[_Item], title: str) -> Iterator[_Result]:
    """Results in the order of the items.

    Threads, not processes: decoders let go of Python's lock, nothing is forked beside the threads of other libraries,
    and Ctrl-C ends them with what each of them is at.
    """
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    try:
        results = pool.map(work, items)
        yield from tqdm(results, title, len(items), unit="image", delay=2, disable=not comm.is_main_process())
    finally:
        pool.shutdown(cancel_futures=True)
