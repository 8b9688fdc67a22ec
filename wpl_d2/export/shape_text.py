"""Expressions for the sizes of a graph's tensors, as text: which of them are arithmetic and nothing else."""

from __future__ import annotations

import ast
import re

_SYMBOL = re.compile(r"[a-z]+\d+", re.ASCII)
_NUMBER = re.compile(r"-?\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII)
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_SIGNS = (ast.UAdd, ast.USub)
_RELATIONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_CONSTANTS = ("true", "false")
# Of sympy and of torch.utils._sympy.functions; each is of numbers and gives one.
_FUNCTIONS = re.compile(
    r"Abs|Add|And|Ceil(Div|ToInt)|CleanDiv|Equality|Float(Pow|TrueDiv)|Floor(Div|ToInt)|(Strict)?(Greater|Less)Than|"
    r"Identity|Integer|IntTrueDiv|[LR]Shift|Max|Min|Mod|ModularIndexing|Mul|Not|Or|Pow|PowByNatural|PythonMod|Rational|"
    r"Round(Decimal|ToInt)|ToFloat|TruncTo(Float|Int)|Unequality|Where"
)


def is_arithmetic(text: str) -> bool:
    """Whether an expression has nothing but symbols, numbers and arithmetic.

    `torch.export` has such texts evaluated when it reads a file, and evaluates whatever else is in them, too.

    Args:
        text: in the forms that PyTorch writes: `s0 + 1`, or `Add(Symbol('s0', integer=True), Integer(1))`.
    """
    try:
        # Python reads some letters beyond ASCII as those of it.
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
