"""Images and masks that were read to their end, with their label counts, which are remembered for later runs."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.utils import comm

from ..structures import IGNORE
from ..utils.errors import InputError
from ..utils.threads import in_threads
from .file_cache import cache_file, file_state, load_arrays, store_arrays
from .image_io import read_record
from .label_statistics import count_labels
from .mappers import read_labels

_VERSION = 1  # of what is remembered, and of what it takes to pass
_DIGEST = 16  # bytes

Records = list[dict[str, Any]]


def verified_files(cfg: CfgNode) -> VerifiedFiles:
    """Those of a config's data set."""
    return VerifiedFiles(cfg.DATASETS.DESCRIPTION or " ".join(cfg.DATASETS.TRAIN), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)


def label_counts(cfg: CfgNode, records: Records) -> np.ndarray:
    """The pixels of each mask by label: (N, C + 1) int64, those of each class and, last, of none.

    Args:
        cfg: of the training.
        records: dataset dicts with masks, N or more than 0.

    Raises:
        InputError: an image or a mask cannot be read.
    """
    verified = verified_files(cfg)
    _, problems = read_files(records, verified, "counting labels")
    if problems:
        raise InputError(problems[0])
    counts = [verified.label_counts(fingerprint(record)) for record in records]
    return np.stack([row for row in counts if row is not None]).astype(np.int64)


def read_files(records: Records, verified: VerifiedFiles, title: str) -> tuple[np.ndarray, list[str]]:
    """Read images and their masks to the last pixel, in threads and with a progress bar.

    Args:
        records: dataset dicts; of those without `sem_seg_file_name` the image alone is read.
        verified: files that need not be read again; those that pass are added, also if this is interrupted.
        title: of the progress bar.

    Returns:
        (C + 1,) int64 pixels of each class and, last, of none in all masks; and the problems of files that do not pass.
    """
    total = np.zeros(verified.num_classes + 1, dtype=np.int64)
    problems: list[str] = []
    unread: list[tuple[bytes, dict[str, Any]]] = []
    for record in records:
        key = fingerprint(record)
        known = verified.label_counts(key)
        if known is None:
            unread.append((key, record))
        else:
            total += known

    def examine(item: tuple[bytes, dict[str, Any]]) -> np.ndarray | InputError:
        return _examine(item[1], verified.num_classes)

    try:
        results = in_threads(examine, unread, title, quiet=not comm.is_main_process())
        for (key, _), found in zip(unread, results, strict=True):
            if isinstance(found, InputError):
                problems.append(str(found))
            else:
                verified.add(key, found)
                total += found
    finally:
        verified.store()
    return total, problems


def _examine(record: dict[str, Any], num_classes: int) -> np.ndarray | InputError:
    try:
        size = read_record(record).shape[:2]
        if "sem_seg_file_name" not in record:
            return np.zeros(num_classes + 1, dtype=np.int64)
        return count_labels(read_labels(record, size, num_classes), num_classes)
    except InputError as error:
        return error


class VerifiedFiles:
    """Images and masks that were read to their end, with their label counts, in one small file for each data set."""

    def __init__(self, dataset: str, num_classes: int) -> None:
        """Load what earlier runs stored.

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

    def label_counts(self, key: bytes) -> np.ndarray | None:
        """The (C + 1,) label counts of an image with this `fingerprint`, None if it has not passed."""
        state, pixels = self._known.get(key[:_DIGEST], (b"", None))
        return pixels if state == key[_DIGEST:] else None

    def add(self, key: bytes, pixels: np.ndarray) -> None:
        """Add an image that passed, by its `fingerprint`, with its label counts."""
        self._known[key[:_DIGEST]] = key[_DIGEST:], pixels
        self._new = True

    def store(self) -> None:
        """Write the file anew if something was added; it is whole or absent."""
        if not self._new:
            return
        files = b"".join(key + state for key, (state, _) in self._known.items())
        pixels = np.array([pixels for _, pixels in self._known.values()], dtype=np.uint32)
        store_arrays(self._file, {"files": np.frombuffer(files, np.uint8).reshape(-1, 2 * _DIGEST), "pixels": pixels})
        self._new = False


def fingerprint(record: dict[str, Any]) -> bytes:
    """Two digests: of an image's and its mask's paths and how they are read; of their sizes and times of change."""
    mask = record.get("sem_seg_file_name", "")
    image_path, *image_state = file_state(record["file_name"])
    mask_path, *mask_state = file_state(mask) if mask else ("", 0, 0)
    special = filter(None, [record.get("layout"), record.get("window")])
    how = record.get("sem_seg_ignore", IGNORE), record.get("exif"), *special
    paths = image_path, mask_path, *how
    return b"".join(
        hashlib.blake2b(repr(part).encode(), digest_size=_DIGEST).digest()
        for part in (paths, (*image_state, *mask_state))
    )
