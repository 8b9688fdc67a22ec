"""Writing files that are whole or absent, and reading text that is text and YAML that says everything once."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO

import yaml
from PIL import Image

from .errors import InputError

_MENDS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room there, or write to another disk"),
    errno.EFBIG: "the disk or `ulimit -f` admits no file of that size; raise the limit, or write to another disk",
    errno.EROFS: "make its disk writable, or write to another one",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "allow this user to write there, or choose another place"),
    errno.ENOENT: "its folder is gone; put it back, or choose another place",
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a file is in the place of a folder; remove it, or choose another"),
    errno.EISDIR: "a folder is in its place; remove it, or choose another name",
}
_OTHER_MEND = "see to its disk, or choose another place"


class UnwritableError(InputError):
    """A file cannot be written where it should go; its cause is the OSError."""

    @property
    def is_disk_error(self) -> bool:
        """Whether no other file could be written there either: the disk is full or read-only."""
        return getattr(self.__cause__, "errno", 0) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextmanager
def clear_write_errors(target: Path, size: int = 0) -> Iterator[None]:
    """Around whatever writes a file or makes a folder: what the disk refuses is said in one line.

    Args:
        target: the file or folder, for the message.
        size: bytes that it will have, if that is known, for the message.

    Raises:
        UnwritableError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        full = size and error.errno in (errno.ENOSPC, errno.EDQUOT)
        needed = f"; needed {format_bytes(size)}, free {format_bytes(free_space(target))}" if full else ""
        reason = error.strerror or str(error) or type(error).__name__
        mend = _MENDS.get(error.errno or 0, _OTHER_MEND)
        raise UnwritableError(f"{target}: cannot be written ({reason}{needed}); {mend}") from error


def replace_file(target: Path, write: Callable[[Path], object], size: int = 0) -> None:
    """Let `write` fill a file beside `target` that takes its place when it is complete.

    Args:
        target: its folder must be there.
        write: fills the file that it is given.
        size: bytes that it will have, if that is known, for the message.

    Raises:
        UnwritableError: it cannot be written; what was at its place stays.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with clear_write_errors(target, size):
        try:
            write(unfinished)
            os.replace(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """As `replace_file`, a text in UTF-8; the folder is made where it is missing."""
    with clear_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def save_png(image: Image.Image, target: Path) -> None:
    """As `replace_file`, a picture; the folder must be there."""
    replace_file(target, lambda unfinished: image.save(unfinished, format="PNG"))


def unused_path(path: Path) -> Path:
    """`path`, or the first of `path_2`, `path_3`, ... that is not there."""
    number, free = 1, path
    while free.exists() or free.is_symlink():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free


def free_space(path: Path) -> int:
    """Bytes that can still be written where `path` is, or will be; 0 if that cannot be said."""
    for place in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return 0


def format_bytes(size: int) -> str:
    """A number of bytes to be read by people, such as "1.4 GiB"."""
    amount, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{size} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"


class DeferredErrorFile:
    """A file for `torch.save`, which turns an error of the disk into others, and at times ends the whole process.

    Here it is kept until `torch.save` is done.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Write to `file`, open for binary writing."""
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write, unless an earlier call failed."""
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def flush(self) -> None:
        """Nothing: `finish` does it."""

    def finish(self) -> None:
        """Bring all to the disk.

        Raises:
            OSError: of this, or of an earlier call.
        """
        if self._error is not None:
            raise self._error
        self._file.flush()
        os.fsync(self._file.fileno())


class LineFile:
    """A text file that grows by whole lines, even where the disk gets full or the process is killed."""

    def __init__(self, path: Path) -> None:
        """Open for appending; a line that an earlier process did not finish is taken away.

        Raises:
            UnwritableError: it cannot be written.
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
        """Add text, which `flush` brings to the disk."""
        self._pending += text

    def flush(self) -> None:
        """Bring all lines to the disk, or none of them.

        Raises:
            UnwritableError: the disk does not take them; they are forgotten.
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
    """Make the folder that results will go into, long before there are some.

    Args:
        key: what the user set, for the message.
        folder: may be there already.

    Raises:
        InputError: it cannot be made, or nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{key}: {folder} cannot be written to ({error.strerror}); give another folder") from error


def make_output_parent(key: str, file: Path) -> None:
    """As `make_output_folder`, for the folder of one file.

    Raises:
        InputError: see `make_output_folder`; or `file` is a folder.
    """
    if file.is_dir():
        raise InputError(f"{key}: {file} is a folder; give the name of a file")
    make_output_folder(key, file.parent)


def read_text(file: Path) -> str:
    """The text in a file, without the byte order mark that some editors put before it.

    Raises:
        InputError: it is not in UTF-8.
        OSError: it cannot be opened.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file}: is no text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    if "\0" in text:
        raise InputError(f"{file}: is no text in UTF-8, it has zero bytes; save it as UTF-8")
    return text


def check_unique_keys(file: str, text: str) -> None:
    """Check that no mapping in a YAML text has a key twice: of two values PyYAML takes the last without a word.

    Args:
        file: where the text is from, for the message.
        text: YAML.

    Raises:
        InputError: a key is there twice.
        yaml.YAMLError: it is no YAML.
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
    """All mappings below a node, each once: an anchor may stand in many places, also below itself."""
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


# Hidden ones: ._NAME and .DS_Store of macOS, .NAME.swp and .#NAME of editors, .ipynb_checkpoints.
_LEFT_FOLDERS = re.compile(r"(?!\.\.$)\..+|__macosx|@eadir", re.IGNORECASE | re.DOTALL)
_LEFT_FILES = re.compile(
    rf"{_LEFT_FOLDERS.pattern}|(eh)?thumbs\.db|desktop\.ini|~\$.*|#.*#|.*~|.*\.(bak|orig|swp|tmp)",
    re.IGNORECASE | re.DOTALL,
)


def is_system_file(path: PurePath) -> bool:
    """Whether a file is one that systems and editors leave beside others, or in a folder of such files.

    Args:
        path: of a file, below the folder that is listed, whose own name does not count.
    """
    *folders, name = path.parts
    return bool(_LEFT_FILES.fullmatch(name)) or any(map(_LEFT_FOLDERS.fullmatch, folders))
