"""The language of GitHub's runners: workflow commands in the log, and the files of outputs and summary.

Commands are nbrun's own. What they say comes out of notebooks, so it is cleaned like all text.
"""

import secrets
from collections.abc import Mapping

from nbrun.core.formats.safe_text import safe_text


def command(name: str, message: str = "", /, **properties: object) -> str:
    """Return a workflow command as a line; properties that are None are left out, ``end_line`` becomes ``endLine``."""
    given = ",".join(f"{key}={_property(str(value))}" for key, value in properties.items() if value is not None)
    return f"::{name}{' ' if given else ''}{given}::{_message(message)}"


def _message(text: str) -> str:
    return safe_text(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def assignments(values: Mapping[str, str]) -> str:
    """Return the lines for GITHUB_OUTPUT that set `values`: delimited by what no value can guess."""
    delimiter = f"nbrun-{secrets.token_hex(16)}"
    return "".join(f"{name}<<{delimiter}\n{value}\n{delimiter}\n" for name, value in values.items())
