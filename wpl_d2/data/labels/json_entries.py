"""JSON files of any size, an entry at a time: the elements of their lists are neither kept nor read all at once."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from ...utils.errors import InputError

_CHUNK = 1 << 20  # bytes
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class Entry(NamedTuple):
    """A value in a file.

    Attributes:
        key: of the whole file's object; "" if the file is a list.
        value: decoded.
        start: its first byte in the file.
        end: the byte after it.
    """

    key: str
    value: Any
    start: int
    end: int


def read_entries(file: Path, lists: Collection[str] = ()) -> Iterator[Entry]:
    """The values of a file's object or list.

    Args:
        file: a list, or an object.
        lists: keys whose values are not read as a whole if they are lists or objects, but each of their values.

    Raises:
        InputError: the file is no JSON, or neither a list nor an object.
    """
    with file.open("rb") as stream:
        scanner = _Scanner(stream)
        try:
            if scanner.peek() not in ("[", "{"):
                raise InputError(
                    f"{file}: is neither a list nor an object of JSON; give the file that the tool exports"
                )
            for key in scanner.members():
                if key in lists and scanner.peek() in "[{":
                    for _ in scanner.members():
                        yield scanner.value(key)
                else:
                    yield scanner.value(key)
            if scanner.peek():
                raise json.JSONDecodeError("text after its end", "", 0)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(
                f"{file}: is not JSON, or not whole ({getattr(error, 'msg', error)} near byte {scanner.position}); "
                "export it anew"
            ) from None


class _Scanner:
    """Walks through a JSON text of which it holds a part.

    Bytes are taken for characters, so that places in the text are places in the file: JSON's own characters are ASCII.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._text = stream.read(_CHUNK).decode("latin-1")
        self._place = 3 if self._text.startswith("\xef\xbb\xbf") else 0  # the mark that some editors write
        self._before = 0  # bytes of the file before the text
        self._more = len(self._text) == _CHUNK

    @property
    def position(self) -> int:
        return self._before + self._place

    def peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            self._place = _SPACE.match(self._text, self._place).end()  # type: ignore[union-attr]
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._read():
                return ""

    def members(self) -> Iterator[str]:
        """Walk through the list or object that comes next; the reader takes the value after each key ("" in a list)."""
        closing = {"[": "]", "{": "}"}[self._take("[{")]
        if self.peek() == closing:
            self._place += 1
            return
        while True:
            key = ""
            if closing == "}":
                if self.peek() != '"':
                    raise json.JSONDecodeError("no name of a value", "", 0)
                key = self.value("").value
                self._take(":")
            yield key
            if self._take("," + closing) == closing:
                return

    def value(self, key: str) -> Entry:
        """The value that comes next."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError:
                if not self._read():
                    raise
                continue
            if end < len(self._text) or not self._read():  # else a number may go on
                break
        start, text = self._place, self._text[self._place : end]
        self._place = end
        if not text.isascii():
            value = json.loads(text.encode("latin-1"))
        return Entry(key, value, self._before + start, self._before + end)

    def _take(self, characters: str) -> str:
        found = self.peek()
        if not found or found not in characters:
            raise json.JSONDecodeError(f"no {' or '.join(characters)}", "", 0)
        self._place += 1
        return found

    def _read(self) -> bool:
        """Read on, and forget what was passed; False at the end of the file."""
        if not self._more:
            return False
        rest = self._text[self._place :]
        # At least as much as there is, so that a very long value is not decoded again and again.
        wanted = max(_CHUNK, len(rest))
        read = self._stream.read(wanted).decode("latin-1")
        self._before += self._place
        self._text, self._place = rest + read, 0
        self._more = len(read) == wanted
        return True
