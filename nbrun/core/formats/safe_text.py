r"""Remove control characters and CI commands from untrusted text.

Text from a notebook, a server or a file name can contain characters with an effect. Escape sequences move the cursor
and set the clipboard or the window title. A carriage return starts a line anew. A line that begins with ``::error::``
is a command to GitHub's runner. :func:`safe_text` removes the characters and breaks the commands.

Rules of the runners (``actions/runner`` reads a line twice, once for each form):

- GitHub: ``::name key=value::message`` at the start of a line, after any white space; ``##[name]`` anywhere in it.
- Azure Pipelines: ``##vso[…]`` and ``##[…]``. TeamCity: ``##teamcity[…]``.
- GitLab: ``section_start:…`` and ``section_end:…``.

A runner may remove colours before it reads a line, so a command is broken also if it contains colour codes. Commands
are broken by a zero-width space, which is invisible. GitHub's runner compares strings by the rules of a language, which
ignore this character. It then cuts the command's name one character short, and no command has that name.
"""

import re
from functools import lru_cache

_CONTROL_STRING = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x1f\x7f-\x9f]*+(?:\x07|\x1b\\|\x9c)"
_SEQUENCE = r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]"
_ESCAPE = r"\x1b[ -/]*+[0-~]"
_LINE_BREAK = r"\r\n?|[\x0b\x0c\x85\u2028\u2029]"
# C0 without tab and newline, DEL and C1, directional formatting, surrogates, and two that XML does not allow.
_ACTING = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff"
_CONTROL = re.compile(f"{_CONTROL_STRING}|{_SEQUENCE}|{_ESCAPE}|{_LINE_BREAK}|[{_ACTING}]")
_HAS_CONTROL = re.compile(f"[{_ACTING}]")

_COLOUR = re.compile(r"\x1b\[([0-9;]{0,64})m")
_PLAIN_COLOURS = {*map(str, (*range(5), 7, *range(21, 28), *range(30, 38), *range(39, 48), 49))}
_PLAIN_COLOURS |= {*map(str, (*range(90, 98), *range(100, 108)))}
_EXTENDED = {"38", "48"}
_BYTE = re.compile(r"25[0-5]|2[0-4]\d|1?\d?\d")

_ZERO_WIDTH = "\u200b"
_COLOURS = r"(?:\x1b\[[0-9;]*+m)"
_INVISIBLE = r"[^\S\n]|[\u00ad\u061c\u180e\u200b-\u200f\u2060-\u2064\ufeff]"
_COMMAND = re.compile(
    rf"""
    ^ (?:{_INVISIBLE}|{_COLOURS})*+ (?<!{_ZERO_WIDTH}) (?= : {_COLOURS}* : )  # ::error::
    | \# (?= {_COLOURS}* \# (?:{_COLOURS}|[\w.-])*+ \[ )                      # ##[error], ##vso[task.complete]
    | section_ (?= (?:start|end) : )                                          # section_start:0:name
    """,
    re.MULTILINE | re.IGNORECASE | re.VERBOSE,
)
_MAY_COMMAND = re.compile(r"::|##|section_|\x1b", re.IGNORECASE)
_IN_JSON = re.compile(f"[#{_ACTING}]|_(?=(?i:start|end):)")


def safe_text(text: str, *, colours: bool = False, commands: bool = True) -> str:
    r"""Return `text` without control characters, and with `commands` also without commands to a CI runner.

    Tabs and newlines stay, other line breaks become a blank, and a lone surrogate becomes U+FFFD. Everything else that
    a terminal would interpret is removed. With `colours`, SGR sequences for colours and weights stay.

    >>> safe_text("x\r::error::y\x1b[2J")
    'x ::error::y'
    """
    text = without_controls(text, colours=colours)
    return without_commands(text) if commands else text


def without_controls(text: str, *, colours: bool = False) -> str:
    """Return `text` without the characters and sequences that a terminal interprets, except for colours if allowed."""
    if _HAS_CONTROL.search(text) is None:
        return text
    return _CONTROL.sub(_in_colours if colours else _in_black, text)


def without_commands(text: str) -> str:
    """Return `text`, which has no control characters except colours, with every command to a CI runner broken."""
    if _MAY_COMMAND.search(text) is None:
        return text
    return _COMMAND.sub(rf"\g<0>{_ZERO_WIDTH}", text)


def safe_json(text: str) -> str:
    r"""Return JSON text of the same value that is safe in a log: ``#`` is written as ``\u0023``, and so on."""
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _in_black(found: re.Match[str]) -> str:
    control = found[0]
    if control[0] in "\r\x0b\x0c\x85\u2028\u2029":
        return "\n" if control == "\r\n" else " "
    return "\ufffd" if "\ud800" <= control <= "\udfff" else ""


def _in_colours(found: re.Match[str]) -> str:
    return _colour(found[0]) if found[0][0] == "\x1b" else _in_black(found)


@lru_cache(maxsize=256)
def _colour(sequence: str) -> str:
    """Return the colours and weights of an SGR sequence, without concealed and blinking text."""
    found = _COLOUR.fullmatch(sequence)
    if found is None:
        return ""
    kept: list[str] = []
    codes = iter(found[1].split(";"))
    for code in codes:
        if code in _EXTENDED:
            form = next(codes, "")
            values = [next(codes, "") for _ in range({"5": 1, "2": 3}.get(form, 0))]
            if values and all(map(_BYTE.fullmatch, values)):
                kept += [code, form, *values]
        elif (code.lstrip("0") or "0") in _PLAIN_COLOURS:
            kept.append(code.lstrip("0") or "0")
    return f"\x1b[{';'.join(kept)}m" if kept else ""
