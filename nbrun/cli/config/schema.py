"""Check the settings of a project, and create their JSON schema; pure.

Every option of the command line is a setting. The command line passes a table of its options, and both the check and
the schema are derived from this table. Editors use the schema to complete settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbrun.core.batch.output_paths import Template
from nbrun.core.planning.option_types import Flag, Kind, are_texts, nearest
from nbrun.errors import UsageError

Path = tuple[str | int, ...]
"""A position in the file: keys, and indexes in lists."""
_FLAG = Flag()
_TEMPLATES = "parameter-templates"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting, with the type of its values and its description.

    A setting that may differ between notebooks has a `key`: its name in :class:`nbrun.RunOptions`. ``opposite`` means
    that the option is the negation of the setting.
    """

    name: str
    kind: Kind
    about: str = ""
    key: str = ""
    opposite: bool = False


class Wrong(Exception):
    """A setting is invalid; ``where`` is its position in the file. Caught within nbrun."""

    def __init__(self, where: Path, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.where = where
        self.hint = hint


@dataclass(frozen=True, slots=True)
class OverrideSetting:
    """Settings for some of the notebooks."""

    match: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    skip: bool = False


@dataclass(frozen=True, slots=True)
class JobSetting:
    """The settings of a named batch."""

    notebooks: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    matrix: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    parameter_templates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a project. ``engines`` has the settings of each engine, by its name."""

    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[OverrideSetting] = ()
    jobs: Mapping[str, JobSetting] = field(default_factory=dict)
    engines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_settings(table: Any, settings: Sequence[Setting]) -> Settings:
    """Check and read a project's table; raise :class:`Wrong` for the first error."""
    table = _table(table, ())
    known = {option.name: option for option in settings}
    each = {option.name: option for option in settings if option.key}
    table, engines = _without_engines(table)
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
        engines,
    )


def _without_engines(table: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, Any]]]:
    """Return the table with the engine's URL in ``engine``, and the settings of each engine, which are beside it.

    A key of TOML is a text or a table. So beside ``[engine.NAME]`` the URL is ``engine.url``.
    """
    found = table.get("engine")
    if not isinstance(found, dict):
        return table, {}
    engines = {name: _table(entry, ("engine", name)) for name, entry in found.items() if name != "url"}
    rest = {name: value for name, value in table.items() if name != "engine"}
    return {**rest, "engine": found["url"]} if "url" in found else rest, engines


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
    parameters = _table(entry.get("parameters", {}), (*where, "parameters"))
    templates = _table(entry.get(_TEMPLATES, {}), (*where, _TEMPLATES))
    for name, text in templates.items():
        _check_template(text, (*where, _TEMPLATES, name))
        if also := next(
            (key for key, taken in (("parameters", parameters), ("matrix", matrix)) if name in taken), None
        ):
            raise Wrong((*where, _TEMPLATES, name), f"is in {also} too", "Leave one of them out.")
    options = {name: option for name, option in known.items() if name != "matrix"}
    others = ("notebooks", "matrix", "parameters", _TEMPLATES)
    return JobSetting(notebooks, _options(entry, options, where, others), parameters, matrix, templates)


def _check_template(text: Any, where: Path) -> None:
    if not isinstance(text, str):
        raise Wrong(where, "is a template, as text")
    try:
        Template(text)
    except UsageError as error:
        raise Wrong(where, str(error), error.hint) from None


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
    """Return the value of a setting. If reading returns None, return the unread value, because None means no value."""
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
    about = 'Parameters with fields by name, such as "{date:%Y-%m-%d}".'
    templates = {"type": "object", "additionalProperties": {"type": "string"}, "description": about}
    override = _object({"match": match, "skip": skip, "parameters": parameters, **each}, "match")
    own = {"notebooks": notebooks, "matrix": matrix, "parameters": parameters, _TEMPLATES: templates}
    job = _object({**own, **in_job}, "notebooks")
    named = {"type": "object", "additionalProperties": job, "description": "Batches for nbrun batch NAME."}
    if "engine" in every:
        url = every["engine"]
        tables = {"type": "object", "description": "The settings of this engine."}
        engines = {"type": "object", "properties": {"url": url}, "additionalProperties": tables}
        every["engine"] = {"anyOf": [url, engines]}
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
    """Return the line, from 1, of the position `where` in a TOML text below the table `root`, or None.

    The line is that of the innermost key or table header that is found. Only headers and the beginnings of lines are
    searched. For an inline table it is the line of its beginning.
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
