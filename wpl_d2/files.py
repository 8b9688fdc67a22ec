"""Files that are whole or absent, and text files that are text."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path, PurePath

from .errors import InputError


def replace_file(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `target` that takes its place when it is complete."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        write(unfinished)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


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


# Hidden ones: ._NAME and .DS_Store of macOS, .NAME.swp and .#NAME of editors, .ipynb_checkpoints.
_LEFT_FOLDERS = re.compile(r"(?!\.\.$)\..+|__macosx|@eadir", re.IGNORECASE | re.DOTALL)
_LEFT_FILES = re.compile(
    rf"{_LEFT_FOLDERS.pattern}|(eh)?thumbs\.db|desktop\.ini|~\$.*|#.*#|.*~|.*\.(bak|orig|swp|tmp)",
    re.IGNORECASE | re.DOTALL,
)


def is_leftover(path: PurePath) -> bool:
    """Whether a file is one that systems and editors leave beside others, or in a folder of such files.

    Args:
        path: of a file, below the folder that is listed, whose own name does not count.
    """
    *folders, name = path.parts
    return bool(_LEFT_FILES.fullmatch(name)) or any(map(_LEFT_FOLDERS.fullmatch, folders))
