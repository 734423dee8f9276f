"""A hash of what a source file says to Python: its syntax tree without positions, comments and docstrings."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
#: Fields that say nothing more: whether a name is read or written follows from its place, a prefix `u` changes no text.
_UNSAID = {"ctx", "kind", "type_comment"}


@cache
def syntax_digest(tree: ast.Module) -> str:
    """Hash of a parsed file that every Python version gives alike.

    `ast.dump` is not used: what it writes for fields that are empty, or new in a version, differs between versions. A
    file that reads a docstring (`__doc__`) keeps them all in its hash, because there they do something.
    """
    text = "".join(_pieces(tree, keep_docstrings=_reads_docstrings(tree)))
    return hashlib.sha256(text.encode()).hexdigest()


def _reads_docstrings(tree: ast.Module) -> bool:
    names = (node.id if isinstance(node, ast.Name) else getattr(node, "attr", None) for node in ast.walk(tree))
    return "__doc__" in names


def _pieces(tree: ast.Module, *, keep_docstrings: bool) -> Iterator[str]:
    """The tree as text: type of a node, its fields that hold something, a closing bracket."""
    waiting: list[Any] = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
            continue
        yield f"{type(item).__name__}("
        waiting.append(")")
        for name in reversed(item._fields):
            if name not in _UNSAID:
                value: Any = getattr(item, name, None)
                if name == "body" and not keep_docstrings and isinstance(item, _DOCUMENTED):
                    value = _without_docstring(value)
                if isinstance(item, ast.JoinedStr):
                    value = [part for part in value if getattr(part, "value", None) != ""]  # Python 3.12 adds some
                _put(waiting, name, value, item)


def _put(waiting: list[Any], name: str, value: Any, node: ast.AST) -> None:
    """Put a field on the stack, unless it holds nothing."""
    if isinstance(value, ast.AST):
        waiting += (value, f",{name}=")
    elif isinstance(value, list):
        if value:
            items = [item if isinstance(item, ast.AST) else f"{_constant(item)}," for item in reversed(value)]
            waiting += ("]", *items, f",{name}=[")
    elif value is not None or isinstance(node, ast.Constant):
        waiting.append(f",{name}={_constant(value)}")


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    documented = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return body[1:] if documented else body


def _constant(value: Any) -> str:
    """A constant as text that depends on neither the Python version nor the length of a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"int:{value:x}"
    return f"{type(value).__name__}:{value!a}"
