"""Values from YAML files and command lines into a config; what does not fit is refused in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import yaml
from detectron2.config import CfgNode as CN

from .errors import InputError, nearest

_KINDS = {bool: "True or False", int: "a whole number", float: "a number"}


def read_values(file: str) -> Iterator[tuple[str, Any]]:
    """The keys, such as "SOLVER.MAX_ITER", and values of a YAML config and of what its `_BASE_` names.

    Raises:
        InputError: one of these files is missing, is no YAML, has a tag that would run code, or holds no keys.
    """
    try:
        content = CN.load_yaml_with_base(file, allow_unsafe=False)
        return flatten(dict(content.items()))
    except OSError as error:
        raise InputError(f"{error.filename or file}: {error.strerror}; give a YAML file, see configs/") from error
    except yaml.constructor.ConstructorError as error:
        raise InputError(f"{file}: {error.problem}; only plain YAML is read, remove the tag") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: is no YAML ({' '.join(str(error).split())}); mend it there") from error
    except (AssertionError, AttributeError, RecursionError, TypeError) as error:
        # Detectron2 takes for granted that every file is a mapping, and that no _BASE_ leads back to its own file.
        raise InputError(
            f"{file}: it, or a _BASE_ of it, does not consist of `KEY: value`; write it as configs/quickstart.yaml"
        ) from error


def set_value(cfg: CN, key: str, value: Any, source: str) -> None:
    """Set one key, in place. A whole number does for a key that takes any; lists and tuples do for each other.

    Args:
        cfg: not frozen.
        key: such as "SOLVER.MAX_ITER".
        value: as YAML or the command line has it; text is read as Python's literal if it is one.
        source: where it comes from, for the message.

    Raises:
        InputError: there is no such key, or its values are of another type.
    """
    *path, name = key.split(".")
    node: Any = cfg
    for part in path:
        node = node.get(part) if isinstance(node, CN) else None
    if not isinstance(node, CN) or name not in node:
        mend = nearest(key, leaf_keys(cfg), otherwise="see wpl_d2/config.py")
        raise InputError(f"{source}: no config key {key}; {mend}")
    old = node[name]
    if isinstance(old, CN):
        raise InputError(f"{source}: {key} is a section; set keys of it, such as {key}.{next(leaf_keys(old), 'KEY')}")
    try:
        cfg.merge_from_list([key, _whole_to_float(value) if isinstance(old, float) else value])
    except ValueError as error:
        given = CN._decode_cfg_value(value)
        raise InputError(
            f"{source}: {key} cannot be {given!r} of type {type(given).__name__}; give it {_example(old, given)}"
        ) from error


def leaf_keys(node: CN, prefix: str = "") -> Iterator[str]:
    """Every key of a config that has a value, such as "SOLVER.MAX_ITER"."""
    for key, value in node.items():
        if isinstance(value, CN):
            yield from leaf_keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def flatten(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys such as "SOLVER.MAX_ITER", and values, of mappings within mappings."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _whole_to_float(value: Any) -> Any:
    if isinstance(value, str):
        with suppress(ValueError):
            value = int(value)
    return float(value) if type(value) is int else value


def _example(old: Any, given: Any) -> str:
    """What could be written in place of a value of the wrong type."""
    if isinstance(old, str):
        return f"text, such as \"'{given}'\""
    if not isinstance(old, list | tuple):
        return _KINDS.get(type(old), type(old).__name__)
    if isinstance(given, str):
        names = (name.strip() for name in given.strip("()[]").split(","))
        parts = [name for name in names if name]
    else:
        parts = [given] * max(1, len(old))
    return f'several values, such as "{type(old)(parts)}"'
