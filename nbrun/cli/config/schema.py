"""What a project may say of its runs in ``[tool.nbrun]``, and whether it does so rightly; pure.

Its one idea: the options of the command line *are* the settings. The command line hands over a table of its options,
and out of that one table come the check of a file and the schema that editors complete from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from typing import Any

from nbrun.core.formats.units import parse_duration
from nbrun.core.parameters.limits import shown_value

LARGEST_INTEGER = 10**9
Path = tuple[str | int, ...]
"""Where something stands in the file: keys, and positions in lists."""


class Kind(Enum):
    """What values an option takes."""

    FLAG = "true or false"
    INTEGER = "a whole number"
    DURATION = 'seconds, or text such as "5m"'
    TEXT = "text"
    TEXTS = "a list of texts"
    WORD_OR_NUMBER = "a number or a word"


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: which values it takes, and what it is for; ``each`` is one that may differ between notebooks."""

    name: str
    kind: Kind
    about: str = ""
    choices: Sequence[str] = ()
    each: bool = False


class Wrong(Exception):
    """A setting that is wrong; never leaves nbrun. ``where`` is its place in the file."""

    def __init__(self, where: Path, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.where = where
        self.hint = hint


@dataclass(frozen=True, slots=True)
class OverrideSetting:
    """What differs for some notebooks."""

    match: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    skip: bool = False


@dataclass(frozen=True, slots=True)
class JobSetting:
    """A named batch."""

    notebooks: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    matrix: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a project says."""

    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[OverrideSetting] = ()
    jobs: Mapping[str, JobSetting] = field(default_factory=dict)


def read_settings(table: Any, options: Sequence[Option]) -> Settings:
    """Check a project's table; raises :class:`Wrong` at the first thing that is not as it should be."""
    table = _table(table, ())
    known = {option.name: option for option in options}
    each = {option.name: option for option in options if option.each}
    overrides, jobs = table.get("overrides", []), _table(table.get("batch", {}), ("batch",))
    if not isinstance(overrides, list):
        raise Wrong(
            ("overrides",), "is a list of tables", "Write [[tool.nbrun.overrides]] (in nbrun.toml: [[overrides]])"
        )
    return Settings(
        _options(table, known, (), ("overrides", "batch", "parameters")),
        _table(table.get("parameters", {}), ("parameters",)),
        [_override(entry, each, ("overrides", place)) for place, entry in enumerate(overrides)],
        {name: _job(entry, known, ("batch", name)) for name, entry in jobs.items()},
    )


def _override(entry: Any, known: Mapping[str, Option], where: Path) -> OverrideSetting:
    entry = _table(entry, where)
    match = entry.get("match")
    patterns = [match] if isinstance(match, str) else match
    if not _are_texts(patterns) or not patterns:
        raise Wrong((*where, "match"), "says which notebooks are meant, as a pattern or a list of patterns")
    skip = entry.get("skip", False)
    if not isinstance(skip, bool):
        raise Wrong((*where, "skip"), f"takes {Kind.FLAG.value}")
    return OverrideSetting(
        patterns,
        _options(entry, known, where, ("match", "parameters", "skip")),
        _table(entry.get("parameters", {}), (*where, "parameters")),
        skip,
    )


def _job(entry: Any, known: Mapping[str, Option], where: Path) -> JobSetting:
    entry = _table(entry, where)
    notebooks = entry.get("notebooks")
    if not _are_texts(notebooks) or not notebooks:
        raise Wrong((*where, "notebooks"), "names the notebooks, folders and patterns of the job, as a list of texts")
    matrix = _table(entry.get("matrix", {}), (*where, "matrix"))
    for name, values in matrix.items():
        if not isinstance(values, list) or not values:
            raise Wrong((*where, "matrix", name), "is a list of values")
    options = {name: option for name, option in known.items() if name != "matrix"}
    return JobSetting(
        notebooks,
        _options(entry, options, where, ("notebooks", "matrix", "parameters")),
        _table(entry.get("parameters", {}), (*where, "parameters")),
        matrix,
    )


def _options(
    table: Mapping[str, Any], known: Mapping[str, Option], where: Path, others: Sequence[str]
) -> Mapping[str, Any]:
    found = {}
    for name, value in table.items():
        if name in others:
            continue
        if name not in known:
            near = get_close_matches(name, [*known, *others], 3, 0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join([*known, *others])}."
            raise Wrong((*where, name), "is no setting" + (" of a single notebook" if "match" in others else ""), hint)
        found[name] = _value(known[name], value, (*where, name))
    return found


def _value(option: Option, value: Any, where: Path) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    match option.kind:
        case Kind.FLAG:
            right = isinstance(value, bool)
        case Kind.INTEGER:
            right = isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST_INTEGER
        case Kind.TEXT:
            right = isinstance(value, str)
        case Kind.TEXTS:
            right = _are_texts(value)
        case Kind.WORD_OR_NUMBER:
            right = isinstance(value, str) or number
        case _:
            right = isinstance(value, str) or number
            if right:
                try:
                    return parse_duration(value if isinstance(value, str) else shown_value(value))
                except ValueError as error:
                    raise Wrong(where, str(error)) from None
    if not right:
        raise Wrong(where, f"takes {option.kind.value}, not {shown_value(value)}")
    if option.choices and value not in option.choices:
        raise Wrong(where, f"takes {', '.join(option.choices)}, not {shown_value(value)}")
    return value


def _table(value: Any, where: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Wrong(where, "is a table")
    return value


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def schema(options: Sequence[Option]) -> dict[str, Any]:
    """Return the JSON schema of the table, for editors."""
    every = {option.name: _schema_of(option) for option in options}
    each = {option.name: _schema_of(option) for option in options if option.each}
    in_job = {name: one for name, one in every.items() if name != "matrix"}
    texts = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    parameters = {"type": "object", "description": "Parameters by name."}
    match = {"anyOf": [{"type": "string"}, texts], "description": "Which notebooks, as in a .gitignore file."}
    skip = {"type": "boolean", "description": "Leave these notebooks out."}
    axes = {"type": "array", "minItems": 1}
    matrix = {"type": "object", "additionalProperties": axes, "description": "A run for each combination of values."}
    notebooks = {**texts, "description": "Notebooks, folders and patterns."}
    override = _object({"match": match, "skip": skip, "parameters": parameters, **each}, "match")
    job = _object({"notebooks": notebooks, "matrix": matrix, "parameters": parameters, **in_job}, "notebooks")
    named = {"type": "object", "additionalProperties": job, "description": "Batches for nbrun batch NAME."}
    whole = _object(
        {**every, "parameters": parameters, "overrides": {"type": "array", "items": override}, "batch": named}
    )
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "nbrun", **whole}


def _object(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    shape = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**shape, "required": list(required)} if required else shape


def _schema_of(option: Option) -> dict[str, Any]:
    kinds: dict[Kind, dict[str, Any]] = {
        Kind.FLAG: {"type": "boolean"},
        Kind.INTEGER: {"type": "integer"},
        Kind.DURATION: {"type": ["string", "number"]},
        Kind.TEXT: {"type": "string"},
        Kind.TEXTS: {"type": "array", "items": {"type": "string"}},
        Kind.WORD_OR_NUMBER: {"type": ["string", "number"]},
    }
    shape = dict(kinds[option.kind])
    if option.choices:
        shape["enum"] = list(option.choices)
    return {**shape, "description": option.about} if option.about else shape


def line_of(text: str, where: Path, root: Sequence[str] = ()) -> int | None:
    """Return the line, from 1, of what stands at `where` in a TOML text below the table `root`; None if it hides.

    The innermost key or table header that can be found counts. It looks at headers and at the beginnings of lines,
    which is where people write keys; of inline tables it gives the line on which they begin.
    """
    best: tuple[int, int] | None = None
    here: list[str | int] = []
    numbers: dict[tuple[str, ...], int] = {}
    wanted = [*root, *where]
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("["):
            names = _keys(bare.strip("[] \t").split("#")[0].rstrip("] \t"))
            here = []
            for length in range(1, len(names) + 1):
                head = tuple(names[:length])
                here.append(names[length - 1])
                if bare.startswith("[[") and length == len(names):
                    numbers[head] = numbers.get(head, -1) + 1
                if head in numbers:
                    here.append(numbers[head])
            at = here
        elif "=" in bare and not bare.startswith("#"):
            at = [*here, *_keys(bare.partition("=")[0])]
        else:
            continue
        if wanted[: len(at)] == at and (best is None or len(at) > best[0]):
            best = (len(at), number)
    return best[1] if best else None


def _keys(dotted: str) -> list[str]:
    return [key.strip().strip("\"'") for key in dotted.strip().split(".")]
