"""The parsers of CI runners for commands in logs, after their sources and documentation.

GitHub's runner reads the output of a step line by line; .NET ends a line at a line feed, a carriage return or both.
Each line is tried as a command of the second form (``::name properties::data``) and then of the first
(``##[name properties]data``). A name that is not registered is no command.
"""

import re
from collections.abc import Iterator

COMMANDS = frozenset(
    [
        "add-mask", "add-matcher", "add-path", "debug", "echo", "endgroup", "error", "group", "internal-set-repo-path",
        "notice", "remove-matcher", "save-state", "set-env", "set-output", "stop-commands", "warning",
    ]
)  # fmt: skip
# Char.IsWhiteSpace: what String.TrimStart removes.
WHITE_SPACE = "".join(
    map(chr, [*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000])
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_UNSEEN = "[\x00-\x08\x0e-\x1f\x7f\xad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
_ACT = re.compile(r"::[^ ]+(?: .+?)?::|##\[[^ ]+(?: .+?)?\]")


def _name(info: str) -> str | None:
    name = info.partition(" ")[0]
    return name.lower() if name.lower() in COMMANDS else None


def second_form(line: str) -> str | None:
    """Return the name of the command in a line in the current form."""
    line = line.lstrip(WHITE_SPACE)
    end = line.find("::", 2)
    return _name(line[2:end]) if line.startswith("::") and end >= 0 else None


def first_form(line: str) -> str | None:
    """Return the name of the command in a line in the older form."""
    start = line.find("##[")
    end = line.find("]", start)
    return _name(line[start + 3 : end]) if start >= 0 and end >= 0 else None


def loose_names(line: str) -> Iterator[str]:
    """Return possible command names if .NET compares by the rules of a language.

    Its ``StartsWith`` and ``IndexOf`` then ignore invisible characters, but the name is still cut out by the lengths of
    ``::`` and ``##[``.
    """
    line = line.lstrip(WHITE_SPACE)
    if re.match(f"{_UNSEEN}*:{_UNSEEN}*:", line):
        for end in re.finditer(f"(?={_UNSEEN}*:{_UNSEEN}*:)", line[2:]):
            yield line[2 : 2 + end.start()]
    for start in re.finditer(rf"(?={_UNSEEN}*#{_UNSEEN}*#{_UNSEEN}*\[)", line):
        yield line[start.start() + 3 :].partition("]")[0]


def lines_of(log: str) -> list[str]:
    """Return the lines of a log as .NET reads them."""
    return re.split(r"\r\n|\r|\n", log)


def commands_in(log: str) -> list[str]:
    """Return the lines that GitHub's runner, with or without colours, or act would treat as commands."""

    def is_command(line: str) -> bool:
        loosely = any(_name(info) for info in loose_names(line))
        return bool(loosely or second_form(line) or first_form(line) or _ACT.match(line))

    return [line for line in lines_of(log) if is_command(line) or is_command(_COLOURS.sub("", line))]


_OWN = re.compile(r"::(?:(?:error|warning) (?:file|title)=|group::|endgroup::$|add-mask::)")


def foreign_commands_in(log: str) -> list[str]:
    """Return the commands in a log that do not have the form of nbrun's own."""
    return [line for line in commands_in(log) if not _OWN.match(line)]


def other_commands_in(log: str) -> Iterator[str]:
    """Return the commands for the runners of Azure Pipelines, TeamCity and GitLab."""
    for line in lines_of(_COLOURS.sub("", log)):
        if re.search(r"##(vso|teamcity)?\[|section_(start|end):", line, re.IGNORECASE):
            yield line
