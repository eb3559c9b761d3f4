"""Read parameters and secrets from YAML, TOML and JSON, the environment, and files.

This is the only module that imports PyYAML. Values are typed as in papermill: YAML without its dates, which stay text,
and the guesses of ``-p``. The content of files is untrusted. Every error in a file is a :class:`UsageError` with its
position, within limits of time and memory. YAML aliases are counted in expanded form before any value is built.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from nbrun.core.parameters.limits import (
    DEEPEST,
    MOST_VALUES,
    check_values,
    read_float,
    read_number,
    read_toml,
    shortened,
    shown_name,
)
from nbrun.core.planning.destinations import without_credentials
from nbrun.errors import UsageError
from nbrun.storage.paths import name_in_url

LARGEST_SECRET = LARGEST_FILE = 1 << 20
"""Maximum bytes of a file with a secret or parameters."""

_HINT_LARGE = "Put data of that size into a file of its own, and give the notebook its path."
_HINT_PLAIN = "Use plain values: text, numbers, true, false, null, lists and mappings."
_HINT_DEEP = "Flatten it, or put the data into a file and give the notebook its path."
_HINT_NUMBER = "Put the number into quotes if it is text."
_HINT_TWICE = "Remove one of them: only one value would count."
_HINT_YAML = "Write NAME: VALUE, one in each line; text with special characters stands in quotes."
_COMMENT = re.compile(r"//|/\*|^[ \t]*#", re.MULTILINE)

# libyaml limits the nesting and is ten times faster. PyYAML may be installed without it.
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BASE):  # type: ignore[misc]
    """Loads YAML's plain types with unique keys. Dates stay text, as in papermill."""

    def flatten_mapping(self, node: Any) -> None:
        """Merge the mappings of ``<<``; raise an error for a key that appears twice."""
        # Merging adds keys to the node, which it may override. So a node is checked only the first time.
        if id(node) not in self.__dict__.setdefault("_seen_nodes", set()):
            self._seen_nodes.add(id(node))
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if (key.tag, key.value) in seen:
                        raise _YamlProblem(f"the key {shown_name(key.value)} appears twice", key.start_mark)
                    seen.add((key.tag, key.value))
        super().flatten_mapping(node)

    def construct_float(self, node: Any) -> float:
        """Return a float; raise OverflowError for a number that would become infinite."""
        value: float = super().construct_yaml_float(node)
        if value in (float("inf"), float("-inf")) and "inf" not in node.value.casefold():
            read_float(node.value.replace("_", ""))
        return value

    def refuse(self, node: Any) -> Any:
        """Raise an error for a tag without a plain value."""
        tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
        raise _YamlProblem(f"values with the tag {shortened(tag)} are not read", node.start_mark)


class _YamlProblem(yaml.MarkedYAMLError):
    """An error in valid YAML, with its position."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(None, None, problem, mark)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_float)
_Loader.add_constructor(None, _Loader.refuse)


def guessed(name: str, text: str) -> Any:
    """Return the value of ``-p NAME TEXT``: True, False, None, an integer, a float, or else the text.

    Raises :class:`UsageError` for a number that cannot be represented exactly.
    """
    if text in ("True", "False"):
        return text == "True"
    if text == "None":
        return None
    try:
        number = read_number(text)
    except ValueError as error:
        raise UsageError(f"-p {shortened(name)}: {error}", hint=f"For text say -r {shortened(name)} VALUE.") from None
    return text if number is None else number


def from_yaml(text: str | bytes, where: str) -> dict[str, Any]:
    """Read a YAML mapping; raise :class:`UsageError` that begins with `where`."""
    try:
        _check_size(text)
        found = yaml.load(text, Loader=_Loader)  # noqa: S506  (a kind of SafeLoader)
    except Exception as error:  # noqa: BLE001  (a value that does not match its tag raises any exception in PyYAML)
        raise UsageError(
            f"{where}: not readable as YAML: {_yaml_problem(error)}", hint=_yaml_hint(error, text)
        ) from None
    return _parameters(found, where)


def from_base64(text: str, where: str) -> dict[str, Any]:
    """Read a YAML mapping that is encoded in base64."""
    try:
        decoded = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        hint = "Text that is not encoded is given with -y, a file with -f."
        raise UsageError(f"{where}: not readable as base64: {error}", hint=hint) from None
    return from_yaml(decoded, where)


def from_file(path: Path, where: str) -> dict[str, Any]:
    """Read a file of parameters: TOML or JSON by its suffix, otherwise YAML."""
    where = f"{where} {path}"
    return _from_text(_read(path, where), path.suffix, where)


def from_url(url: str, where: str) -> dict[str, Any]:
    """Read a file of parameters from a store or a git repository, like :func:`from_file`."""
    import asyncio

    from nbrun.storage.in_object_store import fetch

    where = f"{where} {without_credentials(url)}"
    try:
        data = asyncio.run(fetch(url, what="file")).data
    except UsageError as error:
        raise UsageError(f"{where.partition(' ')[0]} {error}", hint=error.hint) from None
    return _from_text(_decoded(data, where, LARGEST_FILE, "utf-8-sig"), Path(name_in_url(url)).suffix, where)


def _from_text(text: str, suffix: str, where: str) -> dict[str, Any]:
    match suffix.casefold():
        case ".toml":
            try:
                return _parameters(read_toml(text), where)
            except ValueError as error:
                raise UsageError(f"{where}: not readable as TOML: {error}", hint=_hint_toml(text)) from None
        case ".json":
            try:
                found = json.loads(text, parse_float=read_float, object_pairs_hook=_each_key_once)
            except (ValueError, ArithmeticError, RecursionError) as error:
                message, hint = _json_problem(error, text)
                raise UsageError(f"{where}: not readable as JSON: {message}", hint=hint) from None
            return _parameters(found, where)
        case _:
            return from_yaml(text, where)


def secret_of_environment(name: str, variable: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return a secret from an environment variable; raise :class:`UsageError` if it is not set."""
    if variable not in environment:
        raise UsageError(
            f"--secret {name}: the environment variable {variable} is not set",
            hint="Set it in the environment of nbrun; a secret's value never stands on the command line.",
        )
    return environment[variable]


def secret_of_file(name: str, path: Path) -> str:
    """Return a secret from a file, without the final newline; raise :class:`UsageError`."""
    where = f"--secret-file {name}={path}"
    return _read_bounded(path, where, LARGEST_SECRET, "utf-8").removesuffix("\n").removesuffix("\r")


def _read(path: Path, where: str) -> str:
    if re.match(r"\w[\w+.-]+:/", str(path)):
        raise UsageError(
            f"{where}: a file on this machine is wanted, this is a URL",
            hint="Download it first: curl -fsS URL | nbrun run … -f /dev/stdin",
        )
    try:
        return _read_bounded(path, where, LARGEST_FILE, "utf-8-sig")
    except _NotThere as error:
        text = str(path)
        hint = "Parameters written out are given with -y 'NAME: VALUE'." if {":", "{"} & set(text) else ""
        raise UsageError(str(error), hint=hint) from None


class _NotThere(UsageError):
    """The file does not exist."""


def _read_bounded(path: Path, where: str, largest: int, encoding: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except FileNotFoundError as error:
        raise _NotThere(f"{where}: cannot be read: {error.strerror}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UsageError(f"{where}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return _decoded(data, where, largest, encoding)


def _decoded(data: bytes, where: str, largest: int, encoding: str) -> str:
    if len(data) > largest:
        raise UsageError(f"{where}: larger than {largest} bytes", hint=_HINT_LARGE)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{where}: not UTF-8 text ({error.reason} at byte {error.start})", hint="Save it as UTF-8."
        ) from None


def _check_size(text: str | bytes) -> None:
    """Parse a YAML text; raise an error if it is nested too deeply, contains itself or is too large.

    An alias counts as much as the value that it refers to, because ten lines of aliases can expand to a billion values.
    """
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []  # the open collections, with the count at their beginning
    count = 0
    for event in yaml.parse(text, Loader=_BASE):
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            if any(anchor == name for anchor, _ in open_):
                raise _YamlProblem(f"the value with the anchor &{shortened(name)} holds itself", event.start_mark)
            count += sizes.get(name, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, count))
            count += 1
            if len(open_) > DEEPEST + 1:
                raise _YamlProblem(f"nested more than {DEEPEST} levels deep", event.start_mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor:
                sizes[anchor] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        if count > MOST_VALUES:
            raise _YamlProblem(f"more than {MOST_VALUES} values, aliases written out", event.start_mark)


def _yaml_problem(error: Exception) -> str:
    """Return the error in a YAML text and its position, in one line."""
    match error:
        case yaml.MarkedYAMLError():
            mark = error.problem_mark or error.context_mark
            message = str(error.problem or error.context or "malformed")
            message = "more than one document" if message == "but found another document" else message
            return f"line {mark.line + 1}, column {mark.column + 1}: {message}" if mark else message
        case yaml.YAMLError():
            return _in_one_line(error)
        case RecursionError():
            return "nested too deep"
        case ValueError() | ArithmeticError():
            return _in_one_line(error)
        case _:
            return "a value does not fit its tag"


def _yaml_hint(error: Exception, text: str | bytes) -> str:
    match error:
        case yaml.MarkedYAMLError():
            problem = str(error.problem)
            if "nest" in problem or "holds itself" in problem:
                return _HINT_DEEP
            if "aliases written out" in problem:
                return _HINT_LARGE
            if "appears twice" in problem:
                return _HINT_TWICE
            if "the tag" in problem:
                return _HINT_PLAIN
            if "token" in problem and re.search(r"^ *\t", text if isinstance(text, str) else "", re.MULTILINE):
                return "YAML is indented with spaces, not with tabs."
            return _HINT_YAML
        case yaml.YAMLError():
            return "Save it as UTF-8, without control characters."
        case ValueError() | ArithmeticError():
            return _HINT_NUMBER
        case _:
            return _HINT_PLAIN


def _json_problem(error: Exception, text: str) -> tuple[str, str]:
    """Return the error in a JSON text with its position, in one line, and a hint."""
    match error:
        case json.JSONDecodeError() if not text.strip():
            return "the file is empty", "Write {} for no parameters."
        case json.JSONDecodeError():
            message = f"line {error.lineno}, column {error.colno}: {error.msg}"
            if _COMMENT.search(text):
                return message, "JSON has no comments; a file named .yaml may have them, after a #."
            return message, "A file named .yaml is read as YAML, which is less strict."
        case RecursionError():
            return "nested too deep", _HINT_DEEP
        case _:
            message = _in_one_line(error)
            return message, _HINT_TWICE if "twice" in message else _HINT_NUMBER


def _hint_toml(text: str) -> str:
    if re.search(r"^[\w-]+:\s", text, re.MULTILINE):
        return "This looks like YAML; name the file .yaml."
    return 'Write NAME = VALUE, one in each line; text stands in "quotes".'


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shown_name(twice)} appears twice")
    return found


def _parameters(found: Any, where: str) -> dict[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        kinds: Mapping[type, str] = {list: "a list", str: "text", int: "a number", float: "a number", bool: "a boolean"}
        kind = kinds.get(type(found), f"a {type(found).__name__}")
        raise UsageError(
            f"{where}: a mapping of names to values is wanted, this is {kind}", hint=_mapping_hint(found, where)
        )
    for name in found:
        if not isinstance(name, str):
            shown = name.isoformat() if isinstance(name, date) else shortened(repr(name))
            raise UsageError(f"{where}: {shown} is no name of a parameter", hint="Put it into quotes if it is text.")
    check_values(found, where)
    return found


def _mapping_hint(found: Any, where: str) -> str:
    if not isinstance(found, str):
        return "Write NAME: VALUE, one in each line."
    if where == "-y" and re.search(r"\.(?:ya?ml|json|toml)$", found, re.IGNORECASE):
        return f"A file is given with -f: -f {shortened(found)}"
    name, sign, value = re.split(r"([=:])", found, maxsplit=1) if re.search("[=:]", found) else (found, "", "")
    if sign and len(found) <= 60:
        return f"Write a colon and a space: {name.strip()}: {value.strip()}"
    return "Write NAME: VALUE, with a space after the colon."


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "an integer has more than 4300 digits" if "integer string conversion" in text else shortened(text, 200)
