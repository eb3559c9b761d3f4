"""Types and checks of option values for command line, settings, pytest and Python.

Each option is declared once (:mod:`nbrun.runner.options`). The command line option, the settings key with its JSON
schema, and the check of arguments in Python are derived from the declaration. All of them read values with the same
:class:`Kind`, so a wrong value gets the same message everywhere.

msgspec is not used here: the command line checks its options before it starts the private server, and imports little
until then.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from nbrun.core.formats.units import parse_count, parse_duration, parse_size
from nbrun.core.parameters.limits import shown_value
from nbrun.errors import UsageError

AUTO = "auto"
"""The value of :class:`Count` that lets nbrun choose the number."""
LARGEST_INTEGER = 10**9
SMALLEST_SIZE = 10_000
"""Minimum characters or bytes of a size. Less leaves no space for a note or a message."""


class Kind(ABC):
    """The type of an option's values."""

    takes: str
    """The description of the values in messages."""

    @abstractmethod
    def read(self, value: Any) -> Any:
        """Return a value from Python or the settings in the form that a run uses; raise ValueError.

        Reading the result again returns the same value.
        """

    def parse(self, text: str) -> Any:
        """Return the value of a command line argument; raise ValueError."""
        return self.read(text)

    def spell(self, value: Any) -> str:
        """Return a default in the form of the command line."""
        return str(value)

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the values in the settings."""
        return {"type": "string"}

    def refuse(self, value: Any) -> ValueError:
        """Return the error for a value of another kind."""
        return ValueError(f"takes {self.takes}, not {shown_value(value)}")


class Flag(Kind):
    """True or false."""

    takes = "true or false"

    def read(self, value: Any) -> bool:
        """Return the truth value."""
        if not isinstance(value, bool):
            raise self.refuse(value)
        return value

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema."""
        return {"type": "boolean"}


class Integer(Kind):
    """An integer of at least `least`."""

    takes = "a whole number"

    def __init__(self, least: int = 0) -> None:
        self.least = least

    def read(self, value: Any) -> int:
        """Return the integer."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refuse(value)
        if not self.least <= value < LARGEST_INTEGER:
            raise ValueError(f"takes a whole number from {self.least}, not {shown_value(value)}")
        return value

    def parse(self, text: str) -> int:
        """Return the integer in decimal digits."""
        digits = text.strip()
        if not digits.removeprefix("-").isdecimal() or len(digits) > len(str(LARGEST_INTEGER)):
            raise self.refuse(text)
        return self.read(int(digits))

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema."""
        return {"type": "integer", "minimum": self.least}


class Count(Kind):
    """An integer from 1, or ``auto``. None also means ``auto``."""

    takes = f"a number from 1, or {AUTO}"

    def read(self, value: Any) -> int | str:
        """Return the number, or ``auto``."""
        if value is None or value == AUTO:
            return AUTO
        text = shown_value(value) if type(value) is int else value
        count = parse_count(text) if isinstance(text, str) else None
        if count is None:
            raise self.refuse(value)
        return count

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema."""
        return {"type": ["string", "number"]}


class Duration(Kind):
    """Seconds as a number, or text such as ``5m``. ``none`` and None mean infinity."""

    takes = 'seconds, or text such as "5m"'

    def read(self, value: Any) -> float:
        """Return the seconds."""
        if value is None:
            return math.inf
        if isinstance(value, str):
            return parse_duration(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(value)
        try:
            seconds = float(value)
        except OverflowError:
            raise ValueError(f"{shown_value(value)} is beyond all durations; write none for no limit") from None
        if not seconds > 0:
            return parse_duration(str(seconds))  # raises with the same message as for text
        return seconds

    def spell(self, value: Any) -> str:
        """Return seconds as text."""
        return f"{value:g}s"

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema."""
        return {"type": ["string", "number"]}


class Pause(Duration):
    """A duration in which 0 means never, as in papermill."""

    def read(self, value: Any) -> float:
        """Return the seconds."""
        never = value == "0" or (value == 0 and not isinstance(value, bool))
        return super().read(None if never else value)


class Size(Kind):
    """A number of characters or bytes, or text such as ``50MB``. None means no limit."""

    takes = 'a number, or text such as "50MB"'

    def read(self, value: Any) -> int | None:
        """Return the number."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise self.refuse(value)
        size = parse_size(value if isinstance(value, str) else shown_value(value))
        if size is not None and size < SMALLEST_SIZE:
            raise ValueError(f"{value!r} is too little; the least is {SMALLEST_SIZE // 1000}kB")
        return size

    def spell(self, value: Any) -> str:
        """Return a size of whole gibibytes as text."""
        return f"{value >> 30}GiB"

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema."""
        return {"type": ["string", "number"]}


class Text(Kind):
    """Text."""

    takes = "text"

    def read(self, value: Any) -> str:
        """Return the text."""
        if not isinstance(value, str):
            raise self.refuse(value)
        return value


class Checked(Text):
    """Text that `check` returns in the form that a run uses; it raises ValueError."""

    def __init__(self, check: Callable[[str], str]) -> None:
        self.check = check

    def read(self, value: Any) -> str:
        """Return the checked text."""
        return self.check(super().read(value))


class Moment(Kind):
    """A date, or a date with a time, as ISO 8601 text. Without an offset from UTC it is local time."""

    takes = 'a time such as "2026-11-30T06:00+01:00", or a date'

    def read(self, value: Any) -> datetime:
        """Return the time, with or without an offset."""
        if isinstance(value, datetime):
            return value
        if not isinstance(value, str):
            raise self.refuse(value)
        try:
            return datetime.fromisoformat(value.strip())
        except ValueError:
            raise self.refuse(value) from None


class PathName(Kind):
    """A path as text or as a path object. Only the command line checks `exists` and `folder`."""

    takes = "a path"

    def __init__(self, *, exists: bool = False, folder: bool = False) -> None:
        self.exists = exists
        self.folder = folder

    def read(self, value: Any) -> Any:
        """Return the path unchanged."""
        if not isinstance(value, str) and not hasattr(value, "__fspath__"):
            raise self.refuse(value)
        return value


class PathOrTrue(PathName):
    """A path, or true for a place that follows from another option; true is for the settings alone."""

    takes = "a path, or true"

    def read(self, value: Any) -> Any:
        """Return the path as it was given, or true; None for false."""
        if isinstance(value, bool):
            return value or None
        return super().read(value)

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema."""
        return {"type": ["string", "boolean"]}


class Choice(Kind):
    """One of a few words."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = [*words]
        self.takes = ", ".join(self.words)

    def read(self, value: Any) -> str:
        """Return the word."""
        if not isinstance(value, str) or value not in self.words:
            raise self.refuse(value)
        return value

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema."""
        return {"type": "string", "enum": self.words}


class Words(Kind):
    """Words as a list or separated by commas; `check` raises ValueError for an invalid one."""

    takes = "words, as a list or with commas between them"

    def __init__(self, check: Callable[[str], None]) -> None:
        self.check = check

    def read(self, value: Any) -> tuple[str, ...]:
        """Return the words."""
        words = value.split(",") if isinstance(value, str) else value
        if not are_texts(words):
            raise self.refuse(value)
        found = tuple(word.strip() for word in words if word.strip())
        for word in found:
            self.check(word)
        return found

    def spell(self, value: Any) -> str:
        """Return the words separated by commas."""
        return ",".join(value)


class Texts(Kind):
    """A list of texts; `check` raises ValueError for an invalid one. On the command line the option is repeated."""

    takes = "a list of texts"

    def __init__(self, check: Callable[[str], object] = str) -> None:
        self.check = check

    def read(self, value: Any) -> list[str]:
        """Return the texts."""
        if not are_texts(value):
            raise self.refuse(value)
        for text in value:
            self.check(text)
        return [*value]

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema."""
        return {"type": "array", "items": {"type": "string"}}


class Named(Kind):
    """Values by name; `check` must accept each value. None means no values."""

    def __init__(self, values: str = "values", check: Callable[[Any], bool] = lambda _: True) -> None:
        self.takes = f"a mapping of names to {values}"
        self.check = check

    def read(self, value: Any) -> Mapping[str, Any]:
        """Return the mapping."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.refuse(value)
        for name, one in value.items():
            if not isinstance(name, str) or not self.check(one):
                raise ValueError(f"takes {self.takes}; {shown_value(name)} is none")
        return value


class Thing(Kind):
    """A Python object that `check` must accept."""

    def __init__(self, takes: str, check: Callable[[Any], bool]) -> None:
        self.takes = takes
        self.check = check

    def read(self, value: Any) -> Any:
        """Return the object."""
        if not self.check(value):
            raise self.refuse(value)
        return value


@dataclass(frozen=True, slots=True)
class Option:
    """The declaration of an option.

    ``flags`` are its flags on the command line. The first long one is also the key of the settings. The flag of an
    option that is true by default negates it. None declares an option that exists only in Python. ``each`` is true if
    the option may differ between the notebooks of a batch. ``only_setting`` is true for an option of the settings
    alone.
    """

    kind: Kind
    help: str = ""
    default: Any = None
    flags: Sequence[str] | None = ()
    each: bool = False
    metavar: str | None = None
    show_default: bool = False
    only_setting: bool = False

    @property
    def is_opposite(self) -> bool:
        """Return whether the flag sets the option to false."""
        return isinstance(self.kind, Flag) and self.default is True

    def spellings(self, name: str) -> list[str]:
        """Return the option's flags; the default is derived from its `name`."""
        return [*self.flags] if self.flags else [f"--{'no-' * self.is_opposite}{name.replace('_', '-')}"]

    def setting(self, name: str) -> str:
        """Return the key of the settings."""
        long = next(flag for flag in self.spellings(name) if flag.startswith("--"))
        return long.partition("/")[0].removeprefix("--")

    def read(self, value: Any) -> Any:
        """Return `value` in the form that a run uses; raise ValueError."""
        return None if value is None and self.default is None else self.kind.read(value)


def are_texts(value: Any) -> bool:
    """Return whether `value` is a list or a tuple of texts."""
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def options_in(declaration: Any) -> dict[str, Option]:
    """Return the options that a TypedDict declares, by name: keys whose annotation contains an :class:`Option`."""
    found = {}
    for name, annotation in declaration.__annotations__.items():
        for extra in getattr(annotation, "__metadata__", ()):
            if isinstance(extra, Option):
                found[name] = extra
    return found


def read_options(declaration: Any, given: Mapping[str, Any], what: str) -> Any:
    """Return all options of a TypedDict: those in `given`, checked, and the defaults of the others.

    Raises :class:`UsageError` for an unknown name and for an invalid value. `what` is used in the message.
    """
    options = options_in(declaration)
    if unknown := [name for name in given if name not in options]:
        message = f"there is no such option of {what}: {', '.join(sorted(unknown))}"
        near = nearest(unknown[0], options, 1)
        raise UsageError(f"{message} (did you mean {near[0]}?)" if near else message)
    return {
        name: read_option(name, option, given[name]) if name in given else option.default
        for name, option in options.items()
    }


def read_option(name: str, option: Option, value: Any) -> Any:
    """Return the value of the option `name` in the form that a run uses; raise :class:`UsageError`."""
    try:
        return option.read(value)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names that are most similar to an unknown one."""
    return get_close_matches(name, [*known], most, 0.5)
