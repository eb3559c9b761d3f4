"""Convert the contents of output messages to valid nbformat outputs.

The notebook schema allows strings and lists of strings in a mime bundle, and other JSON values only for JSON mime
types. Kernels also send numbers as ``text/plain`` and objects of custom types, which other tools refuse to open. So
text is kept, other values become their JSON text, and null and keys that an output must not have (``transient``) are
removed.
"""

import re
from collections.abc import Mapping
from typing import Any

from nbrun.core.formats.json_text import as_object, dumps
from nbrun.core.protocol.messages import Message, traceback_lines

Output = dict[str, Any]
"""An entry of a code cell's ``outputs`` in nbformat's format."""

_JSON_TYPE = re.compile(r"application/(.*\+)?json$")


def mime_bundle(data: object) -> dict[str, Any]:
    """Return a valid mime bundle for the ``data`` of a message."""
    return {mime: _mime_value(mime, value) for mime, value in as_object(data).items() if value is not None}


def _mime_value(mime: str, value: Any) -> Any:
    if isinstance(value, str) or _JSON_TYPE.match(mime):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return value
    return dumps(value).decode()


def text(value: object) -> str:
    """Return a string unchanged, None as "", and any other value as its JSON text."""
    if isinstance(value, str):
        return value
    return "" if value is None else dumps(value).decode()


def count(value: object) -> int | None:
    """Return an execution count, or None if the value is not one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def output_of(message: Message) -> Output | None:
    """Return the output in a message, as reporters receive it, or None."""
    content = message.content
    match message.type:
        case "stream":
            return stream_output(text(content.get("name")) or "stdout", text(content.get("text")))
        case "display_data":
            return {**display_output(content.get("data")), "metadata": as_object(content.get("metadata"))}
        case "execute_result":
            data, metadata = mime_bundle(content.get("data")), as_object(content.get("metadata"))
            executed = count(content.get("execution_count"))
            return {"output_type": message.type, "data": data, "metadata": metadata, "execution_count": executed}
        case "error":
            return error_output(content)
        case _:
            return None


def display_output(data: object) -> Output:
    """Return a ``display_data`` output for a mime bundle."""
    return {"output_type": "display_data", "data": mime_bundle(data), "metadata": {}}


def error_output(content: Mapping[str, Any]) -> Output:
    """Return an ``error`` output from an ``error`` message or from an ``execute_reply`` of status error."""
    return {
        "output_type": "error",
        "ename": text(content.get("ename")),
        "evalue": text(content.get("evalue")),
        "traceback": traceback_lines(content.get("traceback")),
    }


def stream_output(name: str, written: str) -> Output:
    """Return a ``stream`` output."""
    return {"output_type": "stream", "name": name, "text": written}
