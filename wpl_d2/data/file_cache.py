"""A cache of arrays that were computed from files, in `$WPL_D2_CACHE`, by default `~/.cache/wpl_d2`.

Arrays are stored under a key of all that they were computed from, with the size and time of change of each file, so
that nothing is found for a file that has changed. Files are whole or absent. A disk that refuses them is a warning, and
arrays are computed each time.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO

import numpy as np

from ..utils.errors import InputError
from ..utils.files import UnwritableError, clear_write_errors, format_bytes, replace_file

_logger = logging.getLogger(__name__)
_SHARED_MEMORY = Path("/dev/shm")


def cache_file(name: str) -> Path:
    """The path of a file of the cache, whether it is there or not."""
    return Path(os.environ.get("WPL_D2_CACHE", "~/.cache/wpl_d2")).expanduser() / name


def file_state(path: str) -> tuple[str, int, int]:
    """A file's absolute path, its size in bytes and its time of change in nanoseconds; -1 where there is no such file.

    As long as they stay the same, what was computed from the file is still valid.
    """
    path = os.path.abspath(path)
    try:
        status = os.stat(path)
    except OSError:
        return path, -1, -1
    return path, status.st_size, status.st_mtime_ns


def load_arrays(file: Path, names: Iterable[str]) -> dict[str, np.ndarray] | None:
    """The arrays in a file; None if it is missing or damaged, so that they must be computed anew."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except Exception:  # its readers raise anything at all on bytes that are something else
        return None


def store_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """As `write_arrays`; a disk that refuses the file is a warning, not an error."""
    try:
        write_arrays(file, arrays)
    except UnwritableError as error:
        _logger.warning("%s; or set WPL_D2_CACHE to another folder: until then it is computed anew", error)


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays into an .npz file, compressed; it is whole or absent, and its folder is made where it is missing.

    Raises:
        UnwritableError: the disk refuses it.
    """

    def write(unfinished: Path) -> None:
        with unfinished.open("wb") as stream:  # given a name, NumPy would add its own ending
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]

    with clear_write_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, write)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Let one process of a machine at a time inside; the others wait. Killed ones let go.

    Args:
        file: empty, of this lock alone; it is made where it is missing, and its folder too.

    Raises:
        UnwritableError: the disk refuses it.
    """
    with clear_write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.open("ab")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class ArrayCache:
    """Arrays within a budget, which all processes of a machine map into memory.

    A file holds one array, and the name of both is a digest of what the array was computed from. Everyone reads at any
    time; arrays are added while some process is inside of `in_use`. When the budget is used up, what was not used since
    this run began is dropped, the longest unused first. What this run has used stays: a list that is longer than the
    cache is read in turn, and would lose each array just before it is needed.
    """

    _HEADER = 128  # bytes of a file before its array
    _CLOSED = 2**62  # in place of the bytes in use: nothing is added any more
    _KEPT_FREE = 4 << 30  # bytes of the disk, but at most a tenth of it

    def __init__(self, folder: Path, budget: int, keep: bool) -> None:
        """Describe the cache; the disk is not touched.

        Args:
            folder: for its files alone.
            budget: most bytes of all files.
            keep: whether they stay when no process uses the cache any more.
        """
        self.folder = folder
        self.budget = budget
        self.keep = keep
        self._began = time.time()
        self._counter_file = folder / "bytes"  # is there while the cache is in use

    def get(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """An array, read-only. If it is not there, it is computed, and added if it can be.

        Args:
            name: of the array.
            compute: makes it; its errors are passed on.
        """
        file = self.folder / f"{name}.npy"
        array = self._map(file)
        if array is None:
            array = compute()
            self._add(file, array)
        return array

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let arrays be added inside, by this process and its children.

        The first process to enter removes what killed ones left unfinished. Of a cache that is not kept, it removes
        everything, and so does the last one to leave. Where the folder cannot be written, a warning says so.
        """
        lock = None
        try:
            with clear_write_errors(self.folder):
                lock = self._enter()
        except UnwritableError as error:
            _warn(str(error))
        with lock or nullcontext():
            try:
                yield
            finally:
                if lock and _lock_alone(lock):
                    self._counter_file.unlink(missing_ok=True)
                    if not self.keep:
                        shutil.rmtree(self.folder, ignore_errors=True)

    def _map(self, file: Path) -> np.ndarray | None:
        """The array in a file, which counts as used by this run; None where it is missing or damaged."""
        try:
            array = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
        except Exception:  # as in `load_arrays`
            return None
        with suppress(OSError):  # the folder is read-only, or the file was just dropped
            if file.stat().st_mtime < self._began:
                os.utime(file)
        return array

    def _enter(self) -> IO[bytes]:
        """An open file whose lock says that the cache is in use; the system lets go of it when its processes end."""
        path = self.folder / "in_use"
        while True:
            self.folder.mkdir(mode=0o777 if self.keep else 0o700, parents=True, exist_ok=True)
            try:
                lock = path.open("ab")
            except FileNotFoundError:  # the last one has just removed the folder
                continue
            if not _lock_alone(lock):
                fcntl.flock(lock, fcntl.LOCK_SH)  # waits for one that cleans
            elif _is_at(path, lock):
                self._clean()
                fcntl.flock(lock, fcntl.LOCK_SH)
            if _is_at(path, lock) and self._counter_file.exists():
                return lock
            lock.close()  # the same, or it was about to

    def _clean(self) -> None:
        """Remove what is unfinished or too much, and count the rest."""
        for unfinished in self.folder.glob(".*.partial"):
            unfinished.unlink()
        self._counter_file.touch()
        with self._counter() as counter:
            used = sum(status.st_size for _, status in self._files())
            _set(counter, used - self._drop(used - self.budget if self.keep else math.inf, before=math.inf))

    def _add(self, file: Path, array: np.ndarray) -> None:
        def write(unfinished: Path) -> None:
            with unfinished.open("wb") as stream:
                whole = np.ascontiguousarray(array)
                np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(whole))
                stream.write(whole.data)
                stream.flush()
                os.fsync(stream.fileno())  # when the power fails, it shall not have its name and no content

        try:
            if self._reserve(array.nbytes + self._HEADER):
                replace_file(file, write)
        except UnwritableError as error:
            self._close(str(error))
        except OSError:  # no process is inside of `in_use`, or each was warned there
            pass

    def _reserve(self, size: int) -> bool:
        """Make room for a file, and count it; False if there is none."""
        with self._counter() as counter:
            used = _get(counter)
            if used == self._CLOSED:
                return False
            disk = shutil.disk_usage(self.folder)
            # Loaders' workers hand over their samples in shared memory, and die where it is full.
            to_free = size + min(disk.total // 10, self._KEPT_FREE) - disk.free
            missing = max(to_free, used + size - self.budget)
            # More than is missing, since each time all files are looked at.
            freed = self._drop(missing + self.budget // 20, before=self._began) if missing > 0 else 0
            _set(counter, used - freed + (size if freed >= missing else 0))
        if freed >= missing:
            return True
        if to_free > freed:
            self._close(f"{self.folder}: its disk is nearly full ({format_bytes(disk.free)} free); make room there")
        else:
            self._close(f"DATALOADER.CACHE_GB: {format_bytes(self.budget)} are used up in {self.folder}; raise it")
        return False

    def _close(self, reason: str) -> None:
        """Add nothing any more, in no process, until the next start; the first that comes here says why."""
        with suppress(OSError), self._counter() as counter:
            if _get(counter) != self._CLOSED:
                _set(counter, self._CLOSED)
                _warn(reason)

    @contextmanager
    def _counter(self) -> Iterator[IO[bytes]]:
        """The file that holds the bytes in use, for one process at a time."""
        with self._counter_file.open("r+b", buffering=0) as counter:
            fcntl.flock(counter, fcntl.LOCK_EX)
            yield counter

    def _drop(self, amount: float, before: float) -> int:
        """Remove files that were last used before a time, the longest unused first.

        Args:
            amount: bytes to free.
            before: a time of `time.time`.

        Returns:
            The bytes that were freed.
        """
        freed = 0
        for file, status in sorted(self._files(), key=lambda item: item[1].st_mtime):
            if freed >= amount or status.st_mtime >= before:
                break
            file.unlink()
            freed += status.st_size
        return freed

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        return [(file, file.stat()) for file in self.folder.glob("*.npy")]


def image_cache(kind: str, gigabytes: float) -> ArrayCache | None:
    """The cache of decoded training images.

    Args:
        kind: "none"; "ram": in shared memory, while some training of this user uses it; "disk": in `$WPL_D2_CACHE`.
        gigabytes: most GiB of it.

    Raises:
        InputError: there is no shared memory.
    """
    if kind == "none":
        return None
    if kind == "ram" and not _SHARED_MEMORY.is_dir():
        raise InputError(f"DATALOADER.CACHE: ram needs {_SHARED_MEMORY}, which this system does not have; take disk")
    folder = _SHARED_MEMORY / f"wpl_d2_{os.getuid()}" if kind == "ram" else cache_file("images")
    return ArrayCache(folder, int(gigabytes * 2**30), keep=kind == "disk")


def _get(counter: IO[bytes]) -> int:
    return int.from_bytes(os.pread(counter.fileno(), 8, 0))


def _set(counter: IO[bytes], used: int) -> None:
    os.pwrite(counter.fileno(), used.to_bytes(8), 0)


def _lock_alone(file: IO[bytes]) -> bool:
    """Lock a file if no other process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, file: IO[bytes]) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _warn(reason: str) -> None:
    _logger.warning("%s; until then what is not in this cache is computed each time", reason)
