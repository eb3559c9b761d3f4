"""Rules for artefacts, the files that a notebook writes and nbrun collects; pure.

A pattern is relative to the kernel's working directory, as in a shell: ``out/*.csv``, ``out/`` (all files below it),
``**/*.png`` (any number of folders). It matches no hidden file unless it names the dot, because servers do not list
hidden files.

A notebook counts only if the pattern ends with ``.ipynb``: executed notebooks are saved all the same.

A file counts only if the run created or changed it. A file from yesterday is no result of today's run.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

SCRATCH = "@scratch"
"""The value of ``--cwd`` for a new folder for each run, which is removed afterwards."""
_DRIVE = re.compile(r"[A-Za-z]:")


def check_pattern(pattern: str) -> None:
    """Raise ValueError for a pattern that names no file, or that could name one outside of the working directory."""
    if "\0" in pattern or not parts_of(pattern):
        raise ValueError(f"{pattern!r} names no file")
    if pattern.startswith(("/", "~", "\\")) or _DRIVE.match(pattern) or ".." in parts_of(pattern):
        raise ValueError(f"{pattern!r} leads out of the working directory; write it relative to it, without ..")


def parts_of(pattern: str) -> Sequence[str]:
    """Return the parts of a pattern, one for each folder and the last one for files."""
    return [part for part in pattern.split("/") if part not in ("", ".")]


def part_matches(part: str, name: str) -> bool:
    """Return whether a part of a pattern matches the name of a file or folder."""
    return fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was seen in the working directory: two equal values mean an unchanged file."""

    modified: object
    size: int | None


Found = Mapping[str, Mapping[str, Seen]]
"""The files that each pattern matches, by their paths."""


def changed(before: Found, after: Found, omitted: Sequence[str]) -> tuple[dict[str, Seen], list[str]]:
    """Return the files that are new or changed and not `omitted`, and a sentence for each pattern without one."""
    files: dict[str, Seen] = {}
    missing = []
    for pattern, all_found in after.items():
        old = before.get(pattern, {})
        named = pattern.endswith(".ipynb")
        found = {path: seen for path, seen in all_found.items() if named or not path.endswith(".ipynb")}
        new = {path: seen for path, seen in found.items() if path not in omitted and old.get(path) != seen}
        if not new:
            same = sum(path not in omitted for path in found)
            unchanged = f"the run changed none of the {same} files that match" if same > 1 else "the file is unchanged"
            missing.append(f"{pattern}: {unchanged if same else 'no file matches'}")
        files |= new
    return dict(sorted(files.items())), missing


def within(files: Mapping[str, Seen], most: int | None) -> tuple[list[str], list[str]]:
    """Return the paths that fit into `most` bytes in all, smaller files first, and those that do not."""
    total = 0
    fitting: list[str] = []
    others: list[str] = []
    for path, seen in sorted(files.items(), key=lambda one: (one[1].size or 0, one[0])):
        total += seen.size or 0
        (fitting if most is None or total <= most else others).append(path)
    return sorted(fitting), sorted(others)


def patterns_in(value: Any) -> list[str]:
    """Return the patterns in the metadata of a notebook, a text or a list; raise ValueError."""
    patterns = [value] if isinstance(value, str) else value if value is not None else []
    if not isinstance(patterns, list) or not all(isinstance(one, str) for one in patterns):
        raise ValueError(f"takes a list of patterns, and not {value!r}")
    for pattern in patterns:
        check_pattern(pattern)
    return patterns
