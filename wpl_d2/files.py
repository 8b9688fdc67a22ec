"""Files that are whole or absent, text files that are text, and YAML that says everything once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

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


def refuse_repeated_keys(file: str, text: str) -> None:
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
