"""Check the settings of a project, and create their JSON schema; pure.

Every option of the command line is a setting. The command line passes a table of its options, and both the check and
the schema are derived from this table. Editors use the schema to complete settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbrun.core.planning.options import Flag, Kind, are_texts, nearest

Path = tuple[str | int, ...]
"""Where something stands in the file: keys, and positions in lists."""
_FLAG = Flag()


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: which values it takes, and what it is for.

    One that may differ between notebooks has a `key`: its name in :class:`nbrun.RunSettings`. With ``opposite`` that
    has the opposite value.
    """

    name: str
    kind: Kind
    about: str = ""
    key: str = ""
    opposite: bool = False


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


def read_settings(table: Any, settings: Sequence[Setting]) -> Settings:
    """Check a project's table; raises :class:`Wrong` at the first thing that is not as it should be."""
    table = _table(table, ())
    known = {option.name: option for option in settings}
    each = {option.name: option for option in settings if option.key}
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


def _override(entry: Any, known: Mapping[str, Setting], where: Path) -> OverrideSetting:
    entry = _table(entry, where)
    match = entry.get("match")
    patterns = [match] if isinstance(match, str) else match
    if not are_texts(patterns) or not patterns:
        raise Wrong((*where, "match"), "says which notebooks are meant, as a pattern or a list of patterns")
    skip = entry.get("skip", False)
    if not isinstance(skip, bool):
        raise Wrong((*where, "skip"), f"takes {_FLAG.takes}")
    return OverrideSetting(
        patterns,
        _options(entry, known, where, ("match", "parameters", "skip")),
        _table(entry.get("parameters", {}), (*where, "parameters")),
        skip,
    )


def _job(entry: Any, known: Mapping[str, Setting], where: Path) -> JobSetting:
    entry = _table(entry, where)
    notebooks = entry.get("notebooks")
    if not are_texts(notebooks) or not notebooks:
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
    table: Mapping[str, Any], known: Mapping[str, Setting], where: Path, others: Sequence[str]
) -> Mapping[str, Any]:
    found = {}
    for name, value in table.items():
        if name in others:
            continue
        if name not in known:
            near = nearest(name, [*known, *others])
            hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join([*known, *others])}."
            raise Wrong((*where, name), "is no setting" + (" of a single notebook" if "match" in others else ""), hint)
        found[name] = _value(known[name], value, (*where, name))
    return found


def _value(setting: Setting, value: Any, where: Path) -> Any:
    """Return a value as it is read; as it was written where it is read as None, which would be no value at all."""
    try:
        read = setting.kind.read(value)
    except ValueError as error:
        raise Wrong(where, str(error)) from None
    return value if read is None else read


def _table(value: Any, where: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Wrong(where, "is a table")
    return value


def schema(settings: Sequence[Setting]) -> dict[str, Any]:
    """Return the JSON schema of the table, for editors."""
    every = {option.name: _schema_of(option) for option in settings}
    each = {option.name: _schema_of(option) for option in settings if option.key}
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


def _schema_of(setting: Setting) -> dict[str, Any]:
    shape = setting.kind.schema()
    return {**shape, "description": setting.about} if setting.about else shape


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
