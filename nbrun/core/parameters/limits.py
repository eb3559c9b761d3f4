"""Limits of parameter values: nesting, size, number of values and digits; pure.

Parameters become literals in one cell of source code. Compilers, kernels and JSON readers fail on values that are
nested too deeply, contain themselves or have thousands of digits. Such values are refused before the run, by name.
"""

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from nbrun.errors import UsageError

DEEPEST = 100
"""Maximum levels of lists and mappings. Python's own tokenizer fails at 200 brackets."""
MOST_VALUES = 200_000
MOST_CHARACTERS = 4_000_000
MOST_DIGITS = 4300
"""Maximum digits of an integer, which is Python's own limit."""

_HINT_SIZE = "Put data of that size into a file of its own, and give the notebook its path."
_HINT_TEXT = "Give it as text: -r NAME VALUE, or in quotes."
_TOO_LARGE = 10**MOST_DIGITS
_KEY = r"""(?:"[^"\n]*"|'[^'\n]*'|[\w-]+)[ \t]*\.[ \t]*"""
_DOTTED = re.compile(rf"(?:^|[\[{{,])[ \t]*(?:{_KEY}){{{DEEPEST}}}", re.MULTILINE)
_NOT_FINITE = re.compile(r"[-+]?\.?(?:inf|infinity|nan)", re.IGNORECASE)
_DIGITS = re.compile(r"[-+]?[\d_]+")


def read_number(text: str) -> int | float | None:
    """Return `text` as an integer or a float, or None if it is not a number.

    Raises ValueError for a number that neither type can represent.
    """
    bare = text.strip()
    if len(bare) > MOST_DIGITS and _DIGITS.fullmatch(bare):
        raise ValueError(f"an integer of {len(bare)} characters is too long; Python reads {MOST_DIGITS} digits")
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return read_float(text)
    except OverflowError as error:
        raise ValueError(str(error)) from None
    except ValueError:
        return None


def read_float(text: str) -> float:
    """Return `text` as a float; raise OverflowError for a number that would become infinite."""
    value = float(text)
    if math.isinf(value) and not _NOT_FINITE.fullmatch(text.strip()):
        raise OverflowError(f"{shortened(text)} is beyond the floating-point numbers, which end at 1.8e308")
    return value


def read_toml(text: str) -> dict[str, Any]:
    """Return the table in a TOML text; raise ValueError with the position of an error."""
    # The parser needs gigabytes for a key of thousands of parts.
    if deep := _DOTTED.search(text):
        line = text.count("\n", 0, deep.end()) + 1
        raise ValueError(f"a key in line {line} has more than {DEEPEST} parts")
    try:
        return tomllib.loads(text, parse_float=read_float)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except OverflowError as error:
        raise ValueError(str(error)) from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # an integer that is too long, or from Python 3.14 on, deep nesting
        raise ValueError(_number_problem(error)) from None


def check_values(values: Mapping[str, Any], where: str) -> None:
    """Raise :class:`UsageError` for parameters that do not fit into a cell.

    These are values that contain themselves, are nested too deeply, too many or too large. A value that appears in
    several places counts in each of them, because it is written each time.
    """
    count = characters = 0
    for name, value in values.items():
        parameter = f"{where}: parameter {shown_name(name)}"
        open_: list[Iterator[Any]] = [iter((value,))]
        while open_:
            if len(open_) > DEEPEST + 1:
                raise UsageError(
                    f"{parameter} is nested more than {DEEPEST} levels deep, or holds itself",
                    hint="Flatten it, or put the data into a file and give the notebook its path.",
                )
            for item in open_[-1]:
                count += 1
                if isinstance(item, str):
                    characters += len(item)
                elif isinstance(item, int):
                    if abs(item) >= _TOO_LARGE:
                        raise UsageError(f"{parameter}: an integer of more than {MOST_DIGITS} digits", hint=_HINT_TEXT)
                elif isinstance(item, Mapping):
                    open_.append(chain(item.keys(), item.values()))
                    break
                elif isinstance(item, (list, tuple)):
                    open_.append(iter(item))
                    break
            else:
                open_.pop()
            if count > MOST_VALUES:
                raise UsageError(f"{where}: parameters of more than {MOST_VALUES} values", hint=_HINT_SIZE)
            if characters > MOST_CHARACTERS:
                raise UsageError(f"{where}: parameters of more than {MOST_CHARACTERS} characters", hint=_HINT_SIZE)


def shown_name(name: str) -> str:
    """Return a parameter's name for messages: quoted, escaped and shortened."""
    return repr(shortened(name))


def shown_value(value: Any) -> str:
    """Return a value for messages: as Python writes it, shortened."""
    try:
        return shortened(repr(value))
    except ValueError:
        return f"an integer of more than {MOST_DIGITS} digits"
    except RecursionError:
        return f"a {type(value).__name__} that is nested deep"


def shortened(text: str, length: int = 60) -> str:
    """Return `text` cut to about `length` characters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _number_problem(error: ValueError) -> str:
    return f"an integer has more than {MOST_DIGITS} digits" if "digits" in str(error) else shortened(str(error), 200)
