"""The language of GitHub's runners: workflow commands in the log, and the files of outputs and summary.

The runner takes a line that begins with ``::`` for a command, and ``##[`` anywhere in a line for an older one. So what
comes from a notebook is made harmless before it goes to a log that a runner reads.
"""

import secrets
from collections.abc import Mapping

_ZERO_WIDTH = "\u200b"


def command(name: str, message: str = "", /, **properties: object) -> str:
    """Give a workflow command as a line; properties that are None are left out, ``end_line`` becomes ``endLine``."""
    given = ",".join(f"{key}={_property(str(value))}" for key, value in properties.items() if value is not None)
    return f"::{name}{' ' if given else ''}{given}::{_message(message)}"


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def harmless(line: str) -> str:
    """Give a line of foreign text so that no runner takes it for a command; it looks the same."""
    bare = line.lstrip()
    if bare.startswith("::"):
        line = line[: len(line) - len(bare)] + _ZERO_WIDTH + bare
    return line.replace("##[", f"##{_ZERO_WIDTH}[")


def assignments(values: Mapping[str, str]) -> str:
    """Give the lines for GITHUB_OUTPUT that set `values`: delimited by what no value can guess."""
    delimiter = f"nbrun-{secrets.token_hex(16)}"
    return "".join(f"{name}<<{delimiter}\n{value}\n{delimiter}\n" for name, value in values.items())
