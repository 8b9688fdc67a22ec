"""The reference of all keys, in Markdown."""

from __future__ import annotations

from .constraints import Key
from .keys import KEYS

_HEADER = "| Key | Default | Values | Meaning |\n| --- | --- | --- | --- |\n"


def reference() -> str:
    """A table of keys for each section of the config: key, default, what it may be, and what it does."""
    rows: dict[str, list[str]] = {}
    for key in KEYS:
        rows.setdefault(_section(key), []).append(_row(key))
    return "# Config keys\n" + "".join(f"\n## {section}\n\n{_HEADER}{''.join(rows[section])}" for section in rows)


def _section(key: Key) -> str:
    return ".".join(key.name.split(".")[:-1][:2]) or "General"


def _row(key: Key) -> str:
    return f"| `{key.name}` | `{key.default!r}` | {key.constraint.text} | {key.text} |\n"
