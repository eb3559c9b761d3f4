"""A matrix of parameters: one run for each combination of values, and the runs' names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import product
from typing import Any

from nbrun.core.parameters.limits import read_number, shortened
from nbrun.errors import UsageError

_WORDS: Mapping[str, Any] = {"None": None, "True": True, "False": False}
_LIKE_WORDS = {word.casefold(): word for word in _WORDS} | {"null": "None"}
_RANGE = re.compile(r"(\d{4}-\d\d-\d\d)\.\.(\d{4}-\d\d-\d\d)(?:\s+every\s+(.+))?")
LONGEST = 10_000
"""Maximum combinations; more are probably a mistake."""


def typed(text: str) -> Any:
    """Return the value of `text` as ``-p`` reads it: True, False, None, an integer, a float, or else the text itself.

    Raises ValueError for a number that cannot be represented exactly.
    """
    if text in _WORDS:
        return _WORDS[text]
    number = read_number(text)
    return text if number is None else number


def read_axes(given: Iterable[str]) -> dict[str, Sequence[Any]]:
    """Read arguments such as ``region=EU,US``; raise :class:`UsageError` for an invalid one and a repeated name."""
    axes: dict[str, Sequence[Any]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        name = name.strip()
        if not equals or not name or not values.strip():
            raise UsageError(f"--matrix {shortened(text)}: no name with values", hint="Write --matrix region=EU,US")
        if name in axes:
            raise UsageError(
                f"--matrix {shortened(text)}: {name} was given before", hint=f"Put all values of {name} into one."
            )
        try:
            axes[name] = _dates(values.strip()) or [typed(value.strip()) for value in values.split(",")]
        except ValueError as error:
            raise UsageError(f"--matrix {shortened(name)}: {error}", hint="Give it with -r, or in a file.") from None
    return axes


def _dates(text: str) -> list[str]:
    """Return the dates of a range such as ``2026-11-01..2026-11-30``, or an empty list for another text.

    With ``every`` and a cron expression they are the days on which it has a start. Raises ValueError for a wrong range.
    """
    found = _RANGE.fullmatch(text)
    if found is None:
        return []
    from nbrun.core.batch.schedule import dates

    return dates(*found.groups())


def date_axis(axes: Mapping[str, Sequence[Any]]) -> str | None:
    """Return the name whose values are dates such as ``2026-11-01``, or None if there is not exactly one."""
    found = [name for name, values in axes.items() if values and all(map(_is_date, values))]
    return found[0] if len(found) == 1 else None


def _is_date(value: Any) -> bool:
    try:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def notes_of(axes: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return a note for each text that looks like a boolean or null: ``true`` is not ``True``."""
    return [
        f"--matrix {name}: {value} is text; write {_LIKE_WORDS[value.casefold()]} for the value"
        for name, values in axes.items()
        for value in values
        if isinstance(value, str) and value.casefold() in _LIKE_WORDS
    ]


def combinations(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return all combinations, the last name's values changing fastest; without axes, a single empty one.

    Raises :class:`UsageError` for a name without values, and for more than `LONGEST` combinations.
    """
    size = 1
    for name, values in axes.items():
        if not values:
            raise UsageError(f"matrix: {name} has no values")
        size *= len(values)
    if size > LONGEST:
        raise UsageError(f"the matrix makes {size} runs of each notebook; {LONGEST} are the most")
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def run_name(notebook: str, combination: Mapping[str, Any]) -> str:
    """Return the name of a run: ``report.ipynb [region=EU, year=2025]``."""
    values = ", ".join(f"{name}={value}" for name, value in combination.items())
    return f"{notebook} [{values}]" if values else notebook
