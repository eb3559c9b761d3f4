"""Templates for output paths and parameters: ``out/{stem}-{date:%Y-%m-%d}.ipynb``.

Every error of a template is found before anything runs: an unknown field, a missing value, or two runs that would write
the same file. Fields may have Python's format specifications (``{index:03}``). ``{{`` is a literal brace. In a path a
filled-in value is always one segment, so its slashes become ``_``. In a parameter it stays as it is.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from string import Formatter
from typing import Any

from nbrun.errors import UsageError

FIELDS = ("folder", "stem", "name", "index", "date", "run-id")
_OF_ALL = ("date", "run-id")
_PARAMETER = "params."
_UNFIT = re.compile(r"[\\/:*?\"<>|\x00-\x1f]")
"""Characters that some file systems do not allow in names."""
_ODD = re.compile(r"[^\w.+-]+")
_SLASHES = re.compile(r"/{2,}")
_HERE = re.compile(r"(?:^|(?<=/))(?:\./)+")
"""Remains of a ``{folder}`` that is the current folder."""
_HINT = f"Fields are {', '.join('{' + name + '}' for name in FIELDS)} and {{params.NAME}}; write {{{{ for a brace."


@dataclass(frozen=True, slots=True)
class Fields:
    """The values of one run: its notebook's path in the tree, its number among all runs from 1, its parameters."""

    path: str
    index: int
    when: datetime
    run_id: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def value(self, name: str) -> Any:
        """Return the value of a field; raise KeyError for a parameter that the run does not have."""
        if name.startswith(_PARAMETER):
            return self.parameters[name.removeprefix(_PARAMETER)]
        folder, _, file = self.path.rpartition("/")
        stem = file.rpartition(".")[0] or file
        values = {"folder": folder, "stem": stem, "name": file, "index": self.index}
        return {**values, "date": self.when, "run-id": self.run_id}[name]


@dataclass(frozen=True, slots=True)
class Stamp:
    """The start of a call and a random id, the same for all runs and reports of the call."""

    when: datetime
    run_id: str


class Template:
    """A path or a parameter with fields, parsed and checked."""

    def __init__(self, text: str, stamp: Stamp | None = None, where: str = "") -> None:
        """Parse a template; raise :class:`UsageError` for unknown fields and unbalanced braces.

        `stamp` is the call's, if it has one already. `where` names the template in errors; the default is its text.
        """
        self.text = text
        self.where = where or text
        self.stamp = stamp
        self.is_folder = False
        """Whether the template is a folder that mirrors the tree."""
        try:
            self._parts = [(before, name, spec or "", how) for before, name, spec, how in Formatter().parse(text)]
        except ValueError as error:
            raise UsageError(f"{self.where}: no template: {error}", hint=_HINT) from None
        for _, name, _, how in self._parts:
            if name is not None and name not in FIELDS and not _names_parameter(name):
                near = get_close_matches(name, FIELDS, 1)
                meant = near[0] if near else f"{_PARAMETER}{name}"
                raise UsageError(f"{self.where}: there is no field {{{name}}}; did you mean {{{meant}}}?", hint=_HINT)
            if how:
                raise UsageError(f"{self.where}: !{how} after {{{name}}} means nothing here", hint=_HINT)

    def __fspath__(self) -> str:
        """Return the text, so that a template can be used as a path."""
        return self.text

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the fields, in their order."""
        return tuple(name for _, name, _, _ in self._parts if name is not None)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Return the names of the parameters among the fields."""
        return tuple(name.removeprefix(_PARAMETER) for name in self.names if name.startswith(_PARAMETER))

    @property
    def top(self) -> str:
        """Return the folder that contains every possible path, or "" if it is unknown."""
        before = self._parts[0][0] if self._parts else ""
        return before.rpartition("/")[0]

    def fill(self, fields: Fields) -> str:
        """Return the path for one run; raise :class:`UsageError` if a value is missing or cannot be formatted."""
        filled = []
        for before, name, spec, _ in self._parts:
            filled.append(before)
            if name is not None:
                text = self._filled(fields, name, spec)
                filled.append(text or "." if name == "folder" else _segment(text))
        scheme, separator, path = "".join(filled).rpartition("://")
        return f"{scheme}{separator}{_HERE.sub('', _SLASHES.sub('/', path))}"

    def fill_text(self, fields: Fields) -> str:
        """Return the value of a parameter; raise :class:`UsageError` like `fill`."""
        return "".join(
            before + ("" if name is None else self._filled(fields, name, spec)) for before, name, spec, _ in self._parts
        )

    def refuse_differing(self, why: str, hint: str) -> None:
        """Raise :class:`UsageError` for fields that differ between the notebooks of a call."""
        if differing := [name for name in self.names if name not in _OF_ALL]:
            raise UsageError(f"{self.where}: {{{differing[0]}}} differs between notebooks, and {why}", hint=hint)

    def _filled(self, fields: Fields, name: str, spec: str) -> str:
        try:
            return format(fields.value(name), spec or ("%Y-%m-%d" if name == "date" else ""))
        except KeyError:
            known = ", ".join(fields.parameters) or "none"
            raise UsageError(
                f"{self.where}: {fields.path} is given no parameter {name.removeprefix(_PARAMETER)!r}",
                hint=f"Its parameters are: {known}.",
            ) from None
        except (ValueError, TypeError) as error:
            raise UsageError(f"{self.where}: {{{name}:{spec}}}: {error}") from None


def _segment(text: str) -> str:
    """Return a value as one segment of a path."""
    fit = _UNFIT.sub("_", text)
    return fit.replace(".", "_") if not fit.strip(".") else fit


def _names_parameter(name: str) -> bool:
    return name.startswith(_PARAMETER) and name != _PARAMETER


def template_of_all(option: str, path: str, stamp: Stamp) -> str:
    """Return the path of one report on many notebooks.

    Raises :class:`UsageError` for fields that differ between the notebooks.
    """
    template = Template(path, where=f"{option} {path}")
    template.refuse_differing("this is one report of all", "Use {date} and {run-id}, or run one notebook.")
    return template.fill(Fields("", 0, stamp.when, stamp.run_id))


def is_template(text: str) -> bool:
    """Return whether a path contains fields."""
    return "{" in text or "}" in text


def template_for(output: str) -> Template:
    """Return the template for `output` in a batch: itself, or a folder that mirrors the tree."""
    if is_template(output):
        return Template(output)
    if output.endswith(".ipynb"):
        return Template(output)
    template = Template(output.rstrip("/\\") + "/{folder}/{name}")
    template.is_folder = True
    return template


@dataclass(frozen=True, slots=True)
class Destination:
    """The paths that one run reads and writes, in a comparable form."""

    run: str
    source: str
    output: str


def refuse_collisions(destinations: Sequence[Destination]) -> None:
    """Raise :class:`UsageError` if two runs would write the same file, or one would overwrite another's notebook.

    A run may overwrite its own notebook.
    """
    taken: dict[str, str] = {}
    sources = {place.source: place.run for place in destinations}
    for place in destinations:
        if place.output in taken:
            raise UsageError(
                f"{taken[place.output]} and {place.run} would both write {place.output}",
                hint="Give an output template that tells them apart: -o 'out/{folder}/{stem}-{params.NAME}.ipynb', "
                "with {index} if nothing else does.",
            )
        taken[place.output] = place.run
    for place in destinations:
        if place.output != place.source and place.output in sources:
            raise UsageError(f"{place.run} would write over the notebook of {sources[place.output]}, which is run too")


def free_stem(parts: Sequence[str], taken: Iterable[str] = ()) -> str:
    """Return a path without suffix for what is made of a run, from the `parts` of the run's name.

    It stays in the folder that it is put into, and differs from the paths that are `taken`.
    """
    safe = [_ODD.sub("-", part).strip("-.") for part in parts if part not in ("..", ".", "/")]
    stem = wanted = "/".join(part for part in safe if part).removesuffix(".ipynb") or "notebook"
    known, number = {each.lower() for each in taken}, 2
    while stem.lower() in known:
        stem, number = f"{wanted}-{number}", number + 1
    return stem
