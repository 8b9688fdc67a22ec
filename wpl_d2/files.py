"""Files that are whole or absent, and text files that are text."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from .errors import InputError


def replace_file(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `target` that takes its place when it is complete."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        write(unfinished)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def make_folder(key: str, folder: Path) -> None:
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
