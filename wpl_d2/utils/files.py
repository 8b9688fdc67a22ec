"""Writing files atomically and reading text and YAML strictly, with clear errors."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, Any

import yaml
from PIL import Image

from .errors import InputError

_FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room there, or write to another disk"),
    errno.EFBIG: "the disk or `ulimit -f` admits no file of that size; raise the limit, or write to another disk",
    errno.EROFS: "make its disk writable, or write to another one",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "allow this user to write there, or choose another place"),
    errno.ENOENT: "its folder is gone; put it back, or choose another place",
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a file is in the place of a folder; remove it, or choose another"),
    errno.EISDIR: "a folder is in its place; remove it, or choose another name",
}
_OTHER_FIX = "see to its disk, or choose another place"


class UnwritableError(InputError):
    """A file cannot be written; `__cause__` is the OSError."""

    @property
    def is_disk_error(self) -> bool:
        """Whether no other file can be written there either: the disk is full or read-only."""
        return getattr(self.__cause__, "errno", 0) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextmanager
def clear_write_errors(target: Path, size: int = 0) -> Iterator[None]:
    """Turn an OSError of code that writes a file or makes a folder into a clear `UnwritableError`.

    Args:
        target: the file or folder, for the message.
        size: expected size in bytes, if known, for the message.

    Raises:
        UnwritableError: in place of any OSError raised inside.
    """
    try:
        yield
    except OSError as error:
        full = size and error.errno in (errno.ENOSPC, errno.EDQUOT)
        needed = f"; needed {format_bytes(size)}, free {format_bytes(free_space(target))}" if full else ""
        reason = error.strerror or str(error) or type(error).__name__
        fix = _FIXES.get(error.errno or 0, _OTHER_FIX)
        raise UnwritableError(f"{target}: cannot be written ({reason}{needed}); {fix}") from error


def replace_file(target: Path, write: Callable[[Path], object], size: int = 0) -> None:
    """Write a file under a temporary name beside `target`, then rename it: `target` is whole or unchanged.

    Args:
        target: the file; its folder must exist.
        write: called with the temporary path.
        size: expected size in bytes, if known, for the message.

    Raises:
        UnwritableError: it cannot be written.
    """
    unfinished = unfinished_beside(target)
    with clear_write_errors(target, size):
        try:
            write(unfinished)
            os.replace(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)


def unfinished_beside(target: Path) -> Path:
    """A temporary name beside a file, for what becomes this file when it is whole."""
    # Process ids are not unique: other machines and containers may write into the folder.
    return target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")


def file_digest(path: str | Path) -> str:
    """The SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text by `replace_file`; a missing folder is created."""
    with clear_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def save_png(image: Image.Image, target: Path) -> None:
    """Write a PNG by `replace_file`; the folder must exist."""
    replace_file(target, lambda unfinished: image.save(unfinished, format="PNG"))


def unused_path(path: Path) -> Path:
    """The first of `path`, `path_2`, `path_3`, ... that does not exist."""
    number, free = 1, path
    while free.exists() or free.is_symlink():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free


def free_space(path: Path) -> int:
    """Free bytes on the disk that holds `path`, or will; 0 if unknown."""
    for place in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return 0


def format_bytes(size: int) -> str:
    """A number of bytes for people, such as "1.4 GiB"."""
    amount, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{size} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"


class DeferredErrorFile:
    """A file object for `torch.save` that holds back disk errors until `finish`.

    `torch.save` turns them into other errors, and at times aborts the process.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Wrap `file`, open for binary writing."""
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write `data`, or nothing if an earlier call failed."""
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def flush(self) -> None:
        """Do nothing: `finish` flushes."""

    def finish(self) -> None:
        """Flush everything to the disk.

        Raises:
            OSError: this or an earlier call failed.
        """
        if self._error is not None:
            raise self._error
        self._file.flush()
        os.fsync(self._file.fileno())


class LineFile:
    """A text file that grows by whole lines only, even if the disk fills up or the process is killed."""

    def __init__(self, path: Path) -> None:
        """Open for appending, and remove a last line that an earlier process did not finish.

        Raises:
            UnwritableError: the file cannot be written.
        """
        self._path = path
        self._pending = ""
        with clear_write_errors(path):
            self._file = path.open("a+b", buffering=0)
            self._file.truncate(self._end_of_lines())

    def _end_of_lines(self) -> int:
        self._file.seek(0)
        return self._file.read().rfind(b"\n") + 1

    def write(self, text: str) -> None:
        """Buffer text until `flush`."""
        self._pending += text

    def flush(self) -> None:
        """Write all buffered text to the disk, or none of it.

        Raises:
            UnwritableError: it cannot be written; the text is dropped.
        """
        data, self._pending = self._pending.encode(), ""
        with clear_write_errors(self._path):
            size = os.fstat(self._file.fileno()).st_size
            try:
                while data:
                    data = data[self._file.write(data) :]
                os.fsync(self._file.fileno())
            except OSError:
                self._file.truncate(size)
                raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def make_output_folder(key: str, folder: Path) -> None:
    """Create a folder for results and check that it is writable, before the work begins.

    Args:
        key: what the user set, for the message.
        folder: may exist.

    Raises:
        InputError: it cannot be created or written to, or is an address in a bucket.
    """
    if re.match(r"\w{2,}:/", str(folder)):  # of s3://bucket, as a path has it
        raise InputError(f"{key}: {folder} is in a bucket, into which this is not written; give a folder of a disk")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{key}: {folder} cannot be written to ({error.strerror}); give another folder") from error


def make_output_parent(key: str, file: Path) -> None:
    """As `make_output_folder`, for the folder of a file.

    Raises:
        InputError: see `make_output_folder`; or `file` is a folder.
    """
    if file.is_dir():
        raise InputError(f"{key}: {file} is a folder; give the name of a file")
    make_output_folder(key, file.parent)


def read_text(file: Path) -> str:
    """Read UTF-8 text, without the byte order mark that some editors write.

    Raises:
        InputError: it is not UTF-8.
        OSError: it cannot be opened.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    if "\0" in text:
        raise InputError(f"{file}: is not UTF-8 text, it has zero bytes; save it as UTF-8")
    return text


def read_yaml(file: Path, example: str = "configs/datasets/camvid.yaml") -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        file: to read.
        example: a file of its kind, for the message.

    Raises:
        InputError: it is not a mapping, no YAML, not in UTF-8, has a key twice, or is YAML that would run code.
    """
    try:
        text = read_text(file)
        check_unique_keys(str(file), text)
        raw = yaml.safe_load(text)
    except yaml.constructor.ConstructorError as error:
        raise InputError(
            f"{file}: is refused, {error.problem}; write it without YAML tags, which can run code"
        ) from None
    except yaml.YAMLError as error:
        raise InputError(f"{file}: is not YAML ({' '.join(str(error).split())}); mend that line") from None
    if not isinstance(raw, dict):
        raise InputError(f"{file}: is not a mapping of keys to values; see {example}")
    return raw


def check_unique_keys(file: str, text: str) -> None:
    """Check that no mapping in a YAML text repeats a key, of which PyYAML silently takes the last.

    Args:
        file: the text's file, for the message.
        text: YAML.

    Raises:
        InputError: a key is repeated.
        yaml.YAMLError: the text is not YAML.
    """
    repeated = []
    for mapping in _mappings(yaml.compose(text, Loader=yaml.SafeLoader)):
        known = set()
        for key, _ in mapping.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in known:
                    repeated.append((key.start_mark.line + 1, key.value))
                known.add((key.tag, key.value))
    if repeated:
        line, name = min(repeated)
        raise InputError(f"{file}, line {line}: has the key {name!r} a second time; keep one of the two")


def _mappings(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """All mappings below a node, each once: anchors may be referred to many times, and by themselves."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [part for pair in node.value for part in pair]
        else:
            waiting += node.value


# Hidden names include macOS's ._NAME and .DS_Store, editors' .NAME.swp and .#NAME, and .ipynb_checkpoints.
_SYSTEM_FOLDERS = re.compile(r"(?!\.\.$)\..+|__macosx|@eadir", re.IGNORECASE | re.DOTALL)
_SYSTEM_FILES = re.compile(
    rf"{_SYSTEM_FOLDERS.pattern}|(eh)?thumbs\.db|desktop\.ini|~\$.*|#.*#|.*~|.*\.(bak|orig|swp|tmp)",
    re.IGNORECASE | re.DOTALL,
)


def is_system_file(path: PurePath) -> bool:
    """Whether a path is a file, or in a folder, that systems and editors leave beside the user's files.

    Args:
        path: relative to the listed folder, whose own name does not count.
    """
    *folders, name = path.parts
    return bool(_SYSTEM_FILES.fullmatch(name)) or any(map(_SYSTEM_FOLDERS.fullmatch, folders))
