"""A security check of `.pt2` files, since `torch.export.load` executes code that is hidden in them.

It turns a program into Python code: input names become a function's arguments, guards become statements, expressions of
shapes are evaluated, types of trees are imported. This check admits what the graph of a segmentation needs, entry by
entry and key by key, and names what it rejects.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_structure, treespec_dumps

from ..utils.errors import InputError

_SYMBOL = re.compile(r"[a-z]+\d+", re.ASCII)
_NUMBER = re.compile(r"-?\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII)
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_SIGNS = (ast.UAdd, ast.USub)
_RELATIONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_CONSTANTS = ("true", "false")
# Of sympy and torch.utils._sympy.functions: from numbers to a number.
_FUNCTIONS = re.compile(
    r"Abs|Add|And|Ceil(Div|ToInt)|CleanDiv|Equality|Float(Pow|TrueDiv)|Floor(Div|ToInt)|(Strict)?(Greater|Less)Than|"
    r"Identity|Integer|IntTrueDiv|[LR]Shift|Max|Min|Mod|ModularIndexing|Mul|Not|Or|Pow|PowByNatural|PythonMod|Rational|"
    r"Round(Decimal|ToInt)|ToFloat|TruncTo(Float|Int)|Unequality|Where"
)


def is_arithmetic(text: str) -> bool:
    """Whether an expression, which `torch.export.load` evaluates, is made of symbols, numbers and arithmetic only.

    Args:
        text: as PyTorch writes it: `s0 + 1`, or `Add(Symbol('s0', integer=True), Integer(1))`.
    """
    try:
        # Python reads some non-ASCII letters as ASCII ones.
        return text.isascii() and text.isprintable() and _is_arithmetic(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_arithmetic(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return isinstance(value, int | float)
        case ast.Name(id=name):
            return bool(_SYMBOL.fullmatch(name)) or name in _CONSTANTS
        case ast.BinOp(left=left, op=operator, right=right):
            return isinstance(operator, _OPERATORS) and _is_arithmetic(left) and _is_arithmetic(right)
        case ast.UnaryOp(op=sign, operand=operand):
            return isinstance(sign, _SIGNS) and _is_arithmetic(operand)
        case ast.Compare(left=left, ops=relations, comparators=others):
            return all(isinstance(one, _RELATIONS) for one in relations) and all(map(_is_arithmetic, [left, *others]))
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))], keywords=keywords):
            return name.isascii() and name.isidentifier() and _are_plain(keywords)
        case ast.Call(func=ast.Name(id="Float"), args=[ast.Constant(value=str(number))], keywords=keywords):
            return bool(_NUMBER.fullmatch(number)) and _are_plain(keywords)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return bool(_FUNCTIONS.fullmatch(name)) and all(map(_is_arithmetic, arguments))
    return False


def _are_plain(keywords: list[ast.keyword]) -> bool:
    return all(
        isinstance(word.value, ast.Constant) and isinstance(word.value.value, int) and word.arg for word in keywords
    )


_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PATH = re.compile(r"[\w.]*", re.ASCII)
# `save` and `from_file` are the only ATen operators that open files.
_TARGET = re.compile(
    r"torch\.ops\.aten\.(?!(save|from_file)\.)[A-Za-z_]\w*\.\w+|(_operator|math)\.[a-z]\w*|torch\.sym_\w+", re.ASCII
)

_TEXTS = {
    "as_name": _NAME,
    "as_string": re.compile(r".*", re.DOTALL),  # an operator's argument, written as a quoted string
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
"""Mappings whose keys are names."""
_FIXED: dict[str, Any] = {
    "custom_obj_values": {},
    "guards_code": [],
    "treespec_namedtuple_fields": {},
    "use_pickle": False,
}
"""Keys with one admitted value."""
_DROPPED = "metadata"
"""The origin of operators, which is not needed to run them."""


def sanitized_json(text: bytes) -> bytes:
    """Check that nothing in a program, or in its list of weights, can become code.

    Args:
        text: JSON.

    Returns:
        the same as JSON, without the operators' origins.

    Raises:
        InputError: an entry is not admitted; the message names it.
        ValueError: it is not JSON.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise InputError("is not a program")
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
    if key in _FIXED:
        _require(type(value) is type(_FIXED[key]) and value == _FIXED[key], key, value)
    elif _PARTS.fullmatch(key):
        return _part(value)
    elif _BY_NAME.fullmatch(key):
        _require(isinstance(value, dict) and all(_PATH.fullmatch(name) for name in value), key, value)
        return {name: item if isinstance(item, int) else _part(item) for name, item in value.items()}
    elif _NUMBERS.fullmatch(key):
        _require(all(map(_is_number, value if isinstance(value, list) else [value])), key, value)
    elif key == "expr_str":
        _require(isinstance(value, str) and is_arithmetic(value), key, value)
    elif key in ("in_spec", "out_spec"):
        _require(value in _known_trees(), key, value)
    elif key in _TEXTS:
        texts = value if key in _LISTS_OF_TEXTS and isinstance(value, list) else [value]
        _require(all(text is None or _is_text(_TEXTS[key], text) for text in texts), key, value)
    else:
        _require(False, key, value)
    return value


def _require(holds: bool, key: str, value: Any) -> None:
    if not holds:
        raise InputError(f"has {key} {str(value)[:80]!r}")


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float) or value in _NOT_FINITE


def _is_text(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and bool(pattern.fullmatch(value))


@cache
def _known_trees() -> tuple[str, ...]:
    """PyTorch's text for the arguments of a function of one tensor, and for its result."""
    arguments: tuple[Any, ...] = ((0,), {})
    return tuple(treespec_dumps(tree_structure(tree)) for tree in (arguments, 0))


def sanitized_copy(path: Path) -> io.BytesIO:
    """Copy a `.pt2` file into memory, entry by entry, with all that `torch.export.load` needs and nothing it executes.

    PyTorch unpickles marked entries, sample inputs and the weights of older layouts, loads compiled libraries, and
    makes code of texts. Here each entry is identified by name, read, checked and written anew: so PyTorch reads what
    was checked, even from a file that two readers would understand differently.

    Args:
        path: a file in the layout of PyTorch 2.6, or of 2.8 and later.

    Raises:
        InputError: an entry is not known, or its content is not admitted; the message names it.
        zipfile.BadZipFile, ValueError: the file is not such an archive.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for entry in source.infolist():
            try:
                target.writestr(entry.filename, _rule(entry)(source.read(entry)))
            except InputError as error:
                raise InputError(
                    f"{path}: {entry.filename} {error}, which could run code or is not known to be harmless; it was "
                    "not loaded, export the model anew with tools/export_model.py"
                ) from error
    copy.seek(0)
    return copy


def _unchanged(data: bytes) -> bytes:
    return data


def _tensors(data: bytes) -> bytes:
    """Load tensors safely and save them anew; empty data stand for None."""
    if not data:
        return data
    copy = io.BytesIO()
    try:
        torch.save(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), copy)
    except Exception as error:  # of any class
        raise InputError("holds more than tensors and plain containers") from error
    return copy.getvalue()


_Rule = Callable[[bytes], bytes]
_RULES: dict[str, _Rule] = {
    # PyTorch 2.8 and later, in a folder of the file's own name.
    r"[^/]+/(archive_format|archive_version|byteorder|\.data/(version|serialization_id)|extra/[^/]+)": _unchanged,
    r"[^/]+/models/model\.json": sanitized_json,
    r"[^/]+/data/(weights/model_weights|constants/model_constants)_config\.json": sanitized_json,
    r"[^/]+/data/(weights/weight|constants/tensor)_\d+": _unchanged,
    r"[^/]+/data/(sample_inputs|weights|constants)/model\.pt": _tensors,
    # PyTorch 2.6 and 2.7.
    r"version|extra_files/[^/]+": _unchanged,
    r"serialized_exported_program\.json": sanitized_json,
    r"serialized_(state_dict|constants|example_inputs)\.pt": _tensors,
}


def _rule(entry: zipfile.ZipInfo) -> _Rule:
    if entry.compress_type != zipfile.ZIP_STORED:
        raise InputError("is compressed")  # it could unpack to any size
    for name, rule in _RULES.items():
        if re.fullmatch(name, entry.filename, re.ASCII):
            return rule
    raise InputError("is not an entry of such a file")
