"""The declared types of parameters, and the values that they accept.

Types are Python annotations. An unknown type accepts every value.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

from msgspec import Struct

Accepts = Callable[[Any], bool]


class DeclaredType(Struct, frozen=True):
    """A declared type: its name as written by the author, and a check of values. An empty name is an unknown type."""

    name: str = ""
    takes: Accepts | None = None

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    def accepts(self, value: Any) -> bool:
        """Return whether a value is of this type."""
        return self.takes is None or self.takes(value)

    def adapt(self, value: Any) -> Any:
        """Return ISO 8601 text as a date, time or datetime if this type accepts that and no text."""
        if not isinstance(value, str) or self.accepts(value):
            return value
        for read in (date.fromisoformat, datetime.fromisoformat, time.fromisoformat):
            try:
                made = read(value)
            except ValueError:
                continue
            if self.accepts(made):
                return made
        return value


UNKNOWN = DeclaredType()


LONGEST = 1000
"""Maximum characters of an annotation. A longer one accepts every value."""


def of_annotation(node: ast.expr) -> DeclaredType:
    """Return the type for a Python annotation."""
    name = _spelt(node)
    return DeclaredType(name, _reader(node)) if len(name) <= LONGEST else UNKNOWN


def of_value(value: Any) -> DeclaredType:
    """Return the type of a default value; unknown for None."""
    if value is None:
        return UNKNOWN
    for name, takes in _SIMPLE.items():
        if takes(value):
            return DeclaredType(name, takes)
    return UNKNOWN


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


NUMBER = DeclaredType("a number", _is_number)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def _is_day(value: Any) -> bool:
    return isinstance(value, date) and not isinstance(value, datetime)


_SIMPLE: Mapping[str, Accepts] = {
    "bool": lambda value: isinstance(value, bool),
    "int": _is_integer,
    "float": _is_number,
    "str": lambda value: isinstance(value, str),
    "list": _is_list,
    "dict": lambda value: isinstance(value, Mapping),
    "date": _is_day,
    "datetime": lambda value: isinstance(value, datetime),
    "time": lambda value: isinstance(value, time),
}
_ALIASES = {
    "List": "list",
    "Sequence": "list",
    "Iterable": "list",
    "Collection": "list",
    "tuple": "list",
    "Tuple": "list",
    "set": "list",
    "Set": "list",
    "frozenset": "list",
    "Dict": "dict",
    "Mapping": "dict",
    "Path": "str",
    "PathLike": "str",
}
_OPEN_ENDED = ("List", "Sequence", "Iterable", "Collection", "Set", "list", "set", "frozenset")


def _spelt(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)


def _reader(node: ast.expr) -> Accepts | None:
    """Return the check for an annotation, or None if it accepts every value."""
    match node:
        case ast.Constant(None):
            return lambda value: value is None
        case ast.Constant(str() as quoted):
            return _quoted(quoted)
        case ast.Name(name) | ast.Attribute(attr=name):
            return _SIMPLE.get(_ALIASES.get(name, name))
        case ast.BinOp(left, ast.BitOr(), right):
            return _any_of([left, right])
        case ast.Subscript(ast.Name(name) | ast.Attribute(attr=name), inner):
            return _generic(name, inner.elts if isinstance(inner, ast.Tuple) else [inner])
        case _:
            return None


def _quoted(text: str) -> Accepts | None:
    try:
        return _reader(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _any_of(nodes: Sequence[ast.expr]) -> Accepts | None:
    takers = [_reader(node) for node in nodes]
    known = [taker for taker in takers if taker is not None]
    return (lambda value: any(taker(value) for taker in known)) if len(known) == len(takers) else None


def _generic(name: str, inner: Sequence[ast.expr]) -> Accepts | None:
    match name:
        case "Optional":
            return _any_of([*inner, ast.Constant(None)])
        case "Union":
            return _any_of(inner)
        case "Annotated" | "Final" | "ClassVar":
            return _reader(inner[0])
        case "Literal":
            allowed = [node.value for node in inner if isinstance(node, ast.Constant)]
            if len(allowed) < len(inner):
                return None
            return lambda value: any(type(value) is type(each) and value == each for each in allowed)
        case _:
            pass
    outer = _SIMPLE.get(_ALIASES.get(name, name))
    items = _reader(inner[-1])
    if outer is None or items is None:
        return outer
    if name in _OPEN_ENDED:
        return lambda value: outer(value) and all(map(items, value))
    if _ALIASES.get(name, name) == "dict":
        return lambda value: outer(value) and all(map(items, value.values()))
    return outer
