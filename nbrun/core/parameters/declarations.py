"""Read the declarations in a parameters cell: names, types, defaults and comments.

Python is parsed with :mod:`ast`. For other languages, only the form that nearly all of them share is recognised: an
assignment of a literal on its own line, with an optional comment after it.
"""

import ast
import contextlib
import io
import re
import tokenize
from collections.abc import Iterator, Sequence

from msgspec import Struct

from nbrun.core.parameters.types import NUMBER, UNKNOWN, DeclaredType, of_annotation, of_value


class Declaration(Struct, frozen=True):
    """The declaration of a parameter: ``default`` is source code, ``comment`` the author's comment.

    A ``constant`` cannot be assigned another value.
    """

    name: str
    type: DeclaredType
    default: str = ""
    comment: str = ""
    constant: bool = False


def declarations_in(source: str, language: str) -> Sequence[Declaration] | None:
    """Return the declarations in a cell, or None if it cannot be parsed."""
    if language.casefold() in ("python", "ipython"):
        return _in_python(source)
    return list(_by_lines(source, language.casefold()))


# Python --------------------------------------------------------------------------------------------------------------

_MAGIC = re.compile(r"^(\s*)[%!?].*$", re.MULTILINE)
_TYPE_COMMENT = re.compile(r"type:\s*(?P<type>[^\s#]+)\s*(?P<rest>.*)")


def _in_python(source: str) -> Sequence[Declaration] | None:
    source = _MAGIC.sub(r"\1pass", source)
    try:
        tree = ast.parse(source)
        return _declared(source, tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # deep nesting exhausts the parser
        return None


def _declared(source: str, tree: ast.Module) -> Sequence[Declaration]:
    comments = dict(_comments(source))
    lines = [line.encode() for line in re.split(r"(?<=\n)|(?<=\r)(?!\n)", source)]
    found = []
    for statement in tree.body:
        comment = comments.get(statement.end_lineno or 0, "")
        match statement:
            case ast.AnnAssign(ast.Name(name), annotation, value):
                default = _segment(lines, value) if value else ""
                found.append(Declaration(name, of_annotation(annotation), default, comment))
            case ast.Assign(targets, value):
                default = _segment(lines, value)
                type_, comment = _inferred(value, comment)
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                found += [Declaration(name, type_, default, comment) for name in names]
                several = [target for target in targets if isinstance(target, (ast.Tuple, ast.List))]
                inner = [each.id for target in several for each in target.elts if isinstance(each, ast.Name)]
                found += [Declaration(name, UNKNOWN, "", comment) for name in inner]
            case _:
                pass
    return found


def _segment(lines: Sequence[bytes], node: ast.expr) -> str:
    """Return the source of a node. :func:`ast.get_source_segment` would split the whole source for each node."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    start, end = node.col_offset, node.end_col_offset
    if first == last:
        return lines[first][start:end].decode()
    return b"".join([lines[first][start:], *lines[first + 1 : last], lines[last][:end]]).decode()


def _inferred(value: ast.expr, comment: str) -> tuple[DeclaredType, str]:
    """Return the type of an assignment without an annotation, and its comment without a type comment."""
    if match := _TYPE_COMMENT.fullmatch(comment):
        try:
            annotation = ast.parse(match["type"], mode="eval").body
        except SyntaxError:
            return UNKNOWN, comment
        return of_annotation(annotation), match["rest"]
    if isinstance(value, ast.Call) and isinstance(value.func, (ast.Name, ast.Attribute)):
        name = value.func.id if isinstance(value.func, ast.Name) else value.func.attr
        if name in ("date", "datetime", "time", "float"):
            return of_annotation(ast.Name(name)), comment
    try:
        return of_value(ast.literal_eval(value)), comment
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return UNKNOWN, comment


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the comments after code, with their line numbers."""
    with contextlib.suppress(
        tokenize.TokenError, SyntaxError
    ):  # tokenize is stricter than the parser at the end of a file
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip():
                yield token.start[0], token.string.lstrip("#").strip()


# Other languages -----------------------------------------------------------------------------------------------------

_ASSIGNMENT = re.compile(
    r"""\s*(?:(?:export|declare|local|const|let|mut|var|val|static|final|public|global)\s+)*
        \$?(?P<name>[^\W\d]\w*|\.[A-Za-z]\w*)
        \s*(?::+\s*(?P<type>[^=<]+?(?:<[^=]*>)?))?
        \s*(?:<-|:?=(?!=))\s*(?P<rest>.*)""",
    re.VERBOSE,
)
_SIGN = re.compile("<-|=")
_LONGEST_TARGET = 500
"""Maximum characters before the sign of an assignment."""
_BEHIND = re.compile(r"""((?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^"'])*?)(?:;?\s*(?:%s)\s*(.*))?""")
_COMMENT_SIGNS = {"r": "#", "julia": "#", "bash": r"(?<=\s)\#", "powershell": "#", "matlab": "%", "octave": "[%#]"}
_TEXT = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""")
_INTEGER = re.compile(r"[-+]?\d[\d_]*[lLnI]?")
_REAL = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?[fFdD]?")
_ONE_KIND_OF_NUMBER = {"r", "javascript", "typescript", "matlab", "octave", "powershell"}


def _by_lines(source: str, language: str) -> Iterator[Declaration]:
    behind = re.compile(_BEHIND.pattern % _COMMENT_SIGNS.get(language, "//"), re.DOTALL)
    for line in source.splitlines():
        sign = _SIGN.search(line)
        # Without the limit, the pattern takes quadratic time on a long line of blanks.
        if not sign or sign.start() > _LONGEST_TARGET or not (found := _ASSIGNMENT.fullmatch(line)):
            continue
        split = behind.fullmatch(found["rest"])
        default, comment = (split[1], split[2]) if split else (found["rest"], "")
        default = default.strip().rstrip(";").strip()
        constant = language in ("javascript", "typescript") and line.lstrip().startswith("const ")
        yield Declaration(found["name"], _type_of(default, language), default, (comment or "").strip(), constant)


def _type_of(default: str, language: str) -> DeclaredType:
    """Return the type of a literal. In Bash every value is text, so every type is accepted."""
    if language == "bash":
        return UNKNOWN
    if default.lstrip("$") in ("true", "false", "TRUE", "FALSE", "True", "False"):
        return of_value(value=True)
    if _TEXT.fullmatch(default):
        return of_value("")
    if _REAL.fullmatch(default) or _INTEGER.fullmatch(default):
        if language in _ONE_KIND_OF_NUMBER:
            return NUMBER
        return of_value(0 if _INTEGER.fullmatch(default) else 0.0)
    return UNKNOWN
