"""The JSON in a `torch.export` file: nothing of it may become code.

PyTorch makes Python code of a program when it reads one: its inputs' names become a function's arguments, its guards
statements, its shapes' expressions are evaluated, its trees' types imported. What follows admits what a segmentation's
graph needs, key by key, and refuses the rest by name.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from torch.utils._pytree import tree_structure, treespec_dumps

from ..errors import InputError
from .shape_text import is_arithmetic

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PATH = re.compile(r"[\w.]*", re.ASCII)
# `save` and `from_file` are the only ATen operators that open files.
_TARGET = re.compile(
    r"torch\.ops\.aten\.(?!(save|from_file)\.)[A-Za-z_]\w*\.\w+|(_operator|math)\.[a-z]\w*|torch\.sym_\w+", re.ASCII
)

_TEXTS = {
    "as_name": _NAME,
    "as_string": re.compile(r".*", re.DOTALL),  # an operator's argument, which becomes a quoted text
    "buffer_name": _PATH,
    "forward_arg_names": _NAME,
    "fqn": _PATH,
    "name": _NAME,
    "parameter_name": _PATH,
    "path_name": re.compile(r"(weight|tensor)_\d+", re.ASCII),
    "target": _TARGET,
    "tensor_constant_name": _PATH,
    "torch_version": re.compile(r"[\w.+<=]*", re.ASCII),
    "type": re.compile(r"[a-z]+"),  # of a device
    "verifiers": _NAME,
}
_LISTS_OF_TEXTS = ("forward_arg_names", "verifiers")
_NUMBERS = re.compile(
    r"as_(bools?|floats?|ints?|layout|memory_format|none|scalar_type)|dtype|index|kind|layout|major|minor|max_val|min_val|"
    r"is_(hop_single_tensor_return|param|single_tensor_return)|persistent|requires_grad"
)
_NOT_FINITE = ("Infinity", "-Infinity", "NaN")
_PARTS = re.compile(
    r"arg|as_(device|expr|optional_tensors?|sym_(bool|float|int)s?|tensors?)|buffer|device|graph|graph_module|hint|"
    r"(in|out)put(s|_specs)|module_call_graph|nodes|parameter|schema_version|signature|sizes|storage_offset|strides|"
    r"tensor_(constant|meta)|user_(in|out)put"
)
_BY_NAME = re.compile(r"config|opset_version|range_constraints|(sym_(bool|float|int)|tensor)_values")
"""What has names for keys."""
_ALWAYS: dict[str, Any] = {
    "custom_obj_values": {},
    "guards_code": [],
    "treespec_namedtuple_fields": {},
    "use_pickle": False,
}
"""What has one harmless value."""
_DROPPED = "metadata"
"""Where the operators came from: of no use to run them."""


def harmless_json(text: bytes) -> bytes:
    """The same program, or the same list of its weights, in which each word is known to be no code.

    Args:
        text: JSON.

    Returns:
        JSON, without the operators' origins.

    Raises:
        InputError: something is of another kind; the message names it.
        ValueError: it is no JSON.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise InputError("is no program")
    return json.dumps(_part(content)).encode()


def _part(value: Any) -> Any:
    if isinstance(value, list):
        return [_part(item) for item in value]
    if isinstance(value, dict):
        return {key: {} if key == _DROPPED else _entry(key, item) for key, item in value.items()}
    if value is None:
        return None
    raise InputError(f"has {value!r} in place of a part")


def _entry(key: str, value: Any) -> Any:
    if key in _ALWAYS:
        _demand(type(value) is type(_ALWAYS[key]) and value == _ALWAYS[key], key, value)
    elif _PARTS.fullmatch(key):
        return _part(value)
    elif _BY_NAME.fullmatch(key):
        _demand(isinstance(value, dict) and all(_PATH.fullmatch(name) for name in value), key, value)
        return {name: item if isinstance(item, int) else _part(item) for name, item in value.items()}
    elif _NUMBERS.fullmatch(key):
        _demand(all(map(_is_number, value if isinstance(value, list) else [value])), key, value)
    elif key == "expr_str":
        _demand(isinstance(value, str) and is_arithmetic(value), key, value)
    elif key in ("in_spec", "out_spec"):
        _demand(value in _known_trees(), key, value)
    elif key in _TEXTS:
        texts = value if key in _LISTS_OF_TEXTS and isinstance(value, list) else [value]
        _demand(all(text is None or _is_text(_TEXTS[key], text) for text in texts), key, value)
    else:
        _demand(False, key, value)
    return value


def _demand(holds: bool, key: str, value: Any) -> None:
    if not holds:
        raise InputError(f"has {key} {str(value)[:80]!r}")


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float) or value in _NOT_FINITE


def _is_text(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and bool(pattern.fullmatch(value))


@cache
def _known_trees() -> tuple[str, ...]:
    """How PyTorch writes the arguments of a function of one tensor, and its result."""
    arguments: tuple[Any, ...] = ((0,), {})
    return tuple(treespec_dumps(tree_structure(tree)) for tree in (arguments, 0))
