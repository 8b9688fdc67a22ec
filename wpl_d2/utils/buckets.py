"""Folders in buckets (S3 and others), by fsspec: what is read is fetched first, what is written is put there whole."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeVar

from .errors import InputError
from .files import unfinished_beside

Result = TypeVar("Result")
_CONNECTIONS = 8


def is_url(name: object) -> bool:
    """Whether a name is of something in a bucket, such as "s3://bucket/folder", and not of a file or folder here."""
    return "://" in str(name)


class Bucket:
    """A folder in a bucket."""

    def __init__(self, url: str) -> None:
        """Name a folder, which need not be there.

        Raises:
            InputError: nothing that is installed can open such a URL.
        """
        import fsspec  # here, because most commands never need it

        self.url = url.rstrip("/")
        try:
            # No cache of listings: other machines write there too.
            self._system, self._root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise InputError(
                f"{url}: cannot be opened ({error}); `pip install 'wpl_d2[s3]'` is for s3://, and gcsfs or adlfs for "
                "other services"
            ) from error

    def files(self) -> dict[PurePosixPath, str]:
        """The state of all files below, by their paths relative to the folder, sorted; see `states`."""
        with _clear_errors(self.url):
            found = self._system.find(self._root, detail=True)
        paths = {PurePosixPath(path).relative_to(self._root): info for path, info in found.items()}
        return {path: _state(paths[path]) for path in sorted(paths)}

    def states(self, paths: Sequence[PurePath]) -> dict[PurePath, str]:
        """Of each file its size and its tag, or time; "" where there is none. While that stays, so does the file."""

        def of(path: PurePath) -> str:
            try:
                return _state(self._system.info(self._place(path)))
            except FileNotFoundError:
                return ""

        with _clear_errors(self.url):
            return dict(zip(paths, _at_once(of, paths), strict=True))

    def exists(self, path: str) -> bool:
        """Whether there is such a file, or anything in such a folder."""
        with _clear_errors(self.url):
            return bool(self._system.exists(self._place(path)))

    def fetch(self, paths: Iterable[PurePath], folder: Path) -> None:
        """Copy files to a folder of this machine, several at a time; those that are not there are left out."""

        def one(path: PurePath) -> None:
            unfinished = unfinished_beside(folder / path)
            try:
                with suppress(FileNotFoundError):
                    self._system.get_file(self._place(path), str(unfinished))
                    unfinished.replace(folder / path)
            finally:
                unfinished.unlink(missing_ok=True)

        paths = list(paths)
        for parent in {path.parent for path in paths}:
            (folder / parent).mkdir(parents=True, exist_ok=True)
        with _clear_errors(self.url):
            _at_once(one, paths)

    def put(self, folder: Path, paths: Iterable[PurePath]) -> None:
        """Copy files of a folder of this machine here, several at a time; each is there as a whole or not at all."""
        with _clear_errors(self.url):
            _at_once(lambda path: self._system.put_file(str(folder / path), self._place(path)), paths)

    def read(self, path: PurePath) -> bytes:
        """The content of a file."""
        with _clear_errors(self.url):
            return bytes(self._system.cat_file(self._place(path)))

    def write(self, path: PurePath, content: bytes) -> None:
        """Write a file, as a whole or not at all."""
        with _clear_errors(self.url):
            self._system.pipe_file(self._place(path), content)

    def remove(self, paths: Iterable[PurePath]) -> None:
        """Remove files."""
        with _clear_errors(self.url):
            _at_once(lambda path: self._system.rm_file(self._place(path)), paths)

    def _place(self, path: PurePath | str) -> str:
        return f"{self._root}/{PurePath(path).as_posix()}"


class OutputFolder:
    """A folder for results: on a disk, or one in a bucket, of which files are written here first.

    Attributes:
        path: where to write.
    """

    def __init__(self, name: str | Path) -> None:
        """Name a folder, or a URL; nothing is made yet but a temporary folder."""
        self._bucket = Bucket(str(name)) if is_url(name) else None
        self.name = str(name)
        self._here = tempfile.TemporaryDirectory(prefix="wpl_d2_") if self._bucket else None
        self.path = Path(self._here.name) if self._here else Path(name)

    def exists(self, name: str) -> bool:
        """Whether the folder has a file or folder of a name."""
        return self._bucket.exists(name) if self._bucket else (self.path / name).exists()

    def fetch(self, *names: str) -> None:
        """Bring files of earlier runs here, if there are any."""
        if self._bucket:
            self._bucket.fetch(map(PurePath, names), self.path)

    def publish(self, *names: str) -> None:
        """Put files that were written into the bucket, by default all of them."""
        if self._bucket:
            files = [self.path / name for name in names] or [file for file in self.path.rglob("*") if file.is_file()]
            self._bucket.put(self.path, [file.relative_to(self.path) for file in files if file.is_file()])

    def close(self) -> None:
        """Remove what is here only to be put into a bucket."""
        if self._here:
            self._here.cleanup()


@contextmanager
def output_file(name: str, folder: Path) -> Iterator[Path]:
    """A file to write: one on a disk, or one in a bucket, which is written here first and put there in the end.

    Args:
        name: path or URL.
        folder: of this machine, for a file of a bucket; what is beside the file stays there for a later run.

    Raises:
        InputError: the bucket cannot be reached.
    """
    if not is_url(name):
        yield Path(name)
        return
    place, _, file = name.rpartition("/")
    bucket, here = Bucket(place), folder / hashlib.sha256(name.encode()).hexdigest()[:16]
    here.mkdir(parents=True, exist_ok=True)
    (here / file).unlink(missing_ok=True)  # the bucket may have none any more
    bucket.fetch([PurePath(file)], here)
    yield here / file
    bucket.put(here, [PurePath(file)])


def _at_once(act: Callable[[PurePath], Result], paths: Iterable[PurePath]) -> list[Result]:
    with ThreadPoolExecutor(_CONNECTIONS) as threads:
        return list(threads.map(act, paths))


def _state(info: dict[str, Any]) -> str:
    changed = next((info[key] for key in ("ETag", "etag", "md5Hash", "LastModified", "mtime") if key in info), "")
    return f"{info['size']} {changed}"


@contextmanager
def _clear_errors(url: str) -> Iterator[None]:
    """Every service has errors of its own: of credentials, of the network, of names."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{url}: {reason}; check the address, the credentials and the network") from error
