"""Parameters and secrets as they are given outside of Python: YAML, TOML, JSON, environment and files; PyYAML's door.

Text is typed as papermill types it: YAML without its dates, which stay text, and the guesses of ``-p``.
"""

import base64
import binascii
import json
import os
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from nbrun.errors import UsageError

LARGEST_SECRET = 1 << 20
"""Bytes that a secret's file may have."""


class _Loader(yaml.SafeLoader):
    """YAML's plain types; what looks like a date stays text, as in papermill."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def guessed(text: str) -> Any:
    """Give the value that the text of ``-p NAME TEXT`` stands for: True, False, None, an integer, a float or itself."""
    if text in ("True", "False"):
        return text == "True"
    if text == "None":
        return None
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def from_yaml(text: str | bytes, where: str) -> dict[str, Any]:
    """Read a YAML mapping; raises :class:`UsageError`, naming `where` it stands."""
    try:
        found = yaml.load(text, Loader=_Loader)  # noqa: S506  (a kind of SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not readable as YAML: {_in_one_line(error)}") from None
    return _parameters(found, where)


def from_base64(text: str, where: str) -> dict[str, Any]:
    """Read a YAML mapping out of base64."""
    try:
        decoded = base64.b64decode(text)
    except (binascii.Error, ValueError) as error:
        raise UsageError(f"{where}: not readable as base64: {error}") from None
    return from_yaml(decoded, where)


def from_file(path: Path, where: str) -> dict[str, Any]:
    """Read a file of parameters: TOML or JSON if it is named so, else YAML."""
    where = f"{where} {path}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise UsageError(f"{where}: cannot be read: {error.strerror}") from None
    match path.suffix.casefold():
        case ".toml":
            try:
                return tomllib.loads(text)
            except tomllib.TOMLDecodeError as error:
                raise UsageError(f"{where}: not readable as TOML: {error}") from None
        case ".json":
            try:
                return _parameters(json.loads(text), where)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{where}: not readable as JSON: {error}") from None
        case _:
            return from_yaml(text, where)


def secret_of_environment(name: str, variable: str, environment: Mapping[str, str] = os.environ) -> str:
    """Give a secret from an environment variable; raises :class:`UsageError` where it is not set."""
    if variable not in environment:
        raise UsageError(
            f"--secret {name}: the environment variable {variable} is not set",
            hint="Set it in the environment of nbrun; a secret's value never stands on the command line.",
        )
    return environment[variable]


def secret_of_file(name: str, path: Path) -> str:
    """Give a secret from a file, without the newline at the file's end; raises :class:`UsageError`."""
    where = f"--secret-file {name}={path}"
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_SECRET + 1)
    except OSError as error:
        raise UsageError(f"{where}: cannot be read: {error.strerror}") from None
    if len(data) > LARGEST_SECRET:
        raise UsageError(f"{where}: larger than {LARGEST_SECRET} bytes")
    try:
        return data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UsageError(f"{where}: not UTF-8 text") from None


def _parameters(found: Any, where: str) -> dict[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UsageError(f"{where}: a mapping of names to values is wanted, this is a {type(found).__name__}")
    for name in found:
        if not isinstance(name, str):
            shown = name.isoformat() if isinstance(name, date) else repr(name)
            raise UsageError(f"{where}: {shown} is no name of a parameter", hint="Put it into quotes if it is text.")
    return found


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
