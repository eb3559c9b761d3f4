"""Find and read settings files: ``nbrun.toml`` and ``[tool.nbrun]`` in ``pyproject.toml``.

The nearest file is used, searched from the current folder up to the root of the repository. Its options become the
defaults of the command line, so options on the command line take precedence. Its settings for single notebooks become
overrides. Paths in the file are relative to the file.
"""

import os
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from nbrun.cli.config.schema import JobSetting, Setting, Settings, Wrong, line_of, read_settings
from nbrun.cli.options.generated import DeclaredOption
from nbrun.core.batch.terms import Override
from nbrun.core.parameters.limits import check_values, read_toml
from nbrun.core.planning.artefacts import SCRATCH
from nbrun.core.planning.destinations import CHOICE_OPTIONS, is_url
from nbrun.core.planning.option_types import Flag, Integer, Kind, Text, Texts
from nbrun.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])
LARGEST = 1 << 20
"""Maximum bytes of a settings file."""
_HINT_OTHER = "--config FILE reads settings from another file, --no-config reads none."
_NOT_SETTINGS = ("config", "no-config", "matrix", "parameter-template", "if-due", "help")
_PATHS = ("PATH", "FILE", "DIR", "DIR|FILE.html", "DIR|FILE.pdf", "BASE")
_NAMED_PATH = "NAME=PATH"
_PLACES_TO_RUN = ("server", "engine")
_PLACES = ("notify", "ping")
"""Settings with values such as ``file:PATH``."""
_META = "nbrun.project"
JOB = "nbrun.job"
"""The key of the click context's ``meta`` for the job of ``nbrun batch``."""


@dataclass(frozen=True, slots=True)
class Project:
    """The settings of a project, and the folder of the settings file."""

    folder: Path = field(default_factory=Path.cwd)
    settings: Settings = field(default_factory=Settings)
    job: JobSetting | None = None

    @property
    def matrix(self) -> Mapping[str, Sequence[Any]]:
        """Return the matrix of the job, if there is one."""
        return self.job.matrix if self.job else {}

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Return the parameters of all notebooks. The job's take precedence over the project's."""
        return {**self.settings.parameters, **(self.job.parameters if self.job else {})}

    @property
    def parameter_templates(self) -> Mapping[str, str]:
        """Return the templates of the job's parameters."""
        return self.job.parameter_templates if self.job else {}

    def notebooks(self, *, on_server: bool) -> list[str]:
        """Return the notebooks of the job; local paths are relative to the current folder."""
        named = self.job.notebooks if self.job else ()
        return [name if on_server else from_here(self.folder, name) for name in named]


def settings_options(function: Function) -> Function:
    """Add the options that select the settings file."""
    config = click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="Read settings from this file instead of the nearest nbrun.toml or pyproject.toml.",
    )
    no_config = click.option(
        "--no-config",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_skip,
        help="Ignore all settings files.",
    )
    return no_config(config(function))


def current_project() -> Project:
    """Return the settings of the running command."""
    project = click.get_current_context().meta.get(_META)
    return project if isinstance(project, Project) else Project()


def _name(parameter: click.Parameter) -> str:
    """Return an option's key in a settings file: its first long flag without the dashes."""
    return next((name for name in parameter.opts if name.startswith("--")), "").removeprefix("--")


def settings_of(command: click.Command) -> list[Setting]:
    """Return a command's options as settings."""
    found = []
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.nargs == 1:
            name = _name(parameter)
            if name not in _NOT_SETTINGS:
                each = isinstance(parameter, DeclaredOption) and parameter.declared.each
                key = parameter.key if isinstance(parameter, DeclaredOption) and each else ""
                opposite = isinstance(parameter, DeclaredOption) and parameter.declared.is_opposite
                found.append(Setting(name, _kind(parameter), (parameter.help or "").strip(), key, opposite))
    return found


def _kind(option: click.Option) -> Kind:
    if isinstance(option, DeclaredOption):
        return option.declared.kind
    if option.is_flag:
        return Flag()
    if option.count:
        return Integer()
    return Texts() if option.multiple else Text()


def overrides_for(context: click.Context, project: Project, typed: Mapping[str, Any]) -> list[Any]:
    """Return the settings of single notebooks, without options and parameters from the command line.

    `typed` contains the parameters from the command line.
    """
    base = _below(project.folder)
    excluded = [
        *project.settings.options.get("exclude", ()),
        *(project.job.options.get("exclude", ()) if project.job else ()),
    ]
    found = [Override(excluded, skip=True, base=base)] if excluded else []
    names = {_name(one): one.name for one in context.command.params}
    settings = {one.name: one for one in settings_of(context.command)}
    for entry in project.settings.overrides:
        options = {}
        for name, value in entry.options.items():
            if context.get_parameter_source(names[name] or "") is not ParameterSource.COMMANDLINE:
                options[settings[name].key] = not value if settings[name].opposite else value
        parameters = {name: value for name, value in entry.parameters.items() if name not in typed}
        found.append(Override(entry.match, options, parameters, entry.skip, base))
    return found


def _skip(context: click.Context, _: click.Parameter, given: bool) -> bool:
    if given:
        context.meta[_META] = Project()
    return given


def _read(context: click.Context, _: click.Parameter, file: Path | None) -> Path | None:
    if _META in context.meta:
        return file
    known = settings_of(context.command)
    project = project_of(file, known)
    if name := context.meta.get(JOB):
        if name not in project.settings.jobs:
            there = ", ".join(project.settings.jobs) or "none"
            hint = f"Batches are defined in [tool.nbrun.batch.NAME]. There are: {there}."
            raise UsageError(f"there is no batch {name!r}", hint=hint)
        project = Project(project.folder, project.settings, project.settings.jobs[name])
    options = options_of(project)
    context.meta[_META] = project
    context.default_map = _defaults(context.command, options, project.folder)
    return file


def options_of(project: Project) -> dict[str, Any]:
    """Return the options of the project and of its job.

    A destination, a server or an engine in the job replaces those of the project.
    """
    options, of_job = dict(project.settings.options), project.job.options if project.job else {}
    names = [option.removeprefix("--") for option in CHOICE_OPTIONS.values()]
    if any(of_job.get(name) for name in names):
        options = {name: value for name, value in options.items() if name not in names}
    if any(of_job.get(name) for name in _PLACES_TO_RUN):
        options = {name: value for name, value in options.items() if name not in _PLACES_TO_RUN}
    return {**options, **of_job}


def _defaults(command: click.Command, options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the options of the file as click's defaults, except exclusions, which become overrides."""
    found: dict[str, Any] = {}
    for parameter in command.params:
        name = _name(parameter)
        if name in options and name != "exclude" and parameter.name:
            value = options[name]
            is_path = isinstance(parameter.type, click.Path) or parameter.metavar in _PATHS
            if is_path and not isinstance(value, bool) and not _is_on_server(name, options):
                value = (
                    from_here(folder, value) if isinstance(value, str) else [from_here(folder, one) for one in value]
                )
            elif name in _PLACES:
                value = (
                    place_from_here(folder, value)
                    if isinstance(value, str)
                    else [place_from_here(folder, one) for one in value]
                )
            elif parameter.metavar == _NAMED_PATH:
                value = [_named_from_here(folder, one) for one in value]
            found[parameter.name] = value
    return found


def _is_on_server(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether the path of an option is on the server."""
    if options.get("engine"):
        return name in ("cwd", "output") and options.get("upload") is False
    return bool(options.get("server")) and (name == "cwd" or (name == "output" and not options.get("upload")))


def from_here(folder: Path, path: str) -> str:
    """Return a path relative to `folder` as a path relative to the current folder; a URL stays."""
    if path in ("-", SCRATCH) or is_url(path) or os.path.isabs(path) or folder == Path.cwd():  # noqa: PTH117  (a pattern, perhaps, and no path)
        return path
    seen = os.path.relpath(folder / path)
    return seen + "/" if path.endswith("/") else seen


def _named_from_here(folder: Path, text: str) -> str:
    name, equals, path = text.partition("=")
    return f"{name}={from_here(folder, path)}" if equals else text


def place_from_here(folder: Path, text: str) -> str:
    """Return a value such as ``file:PATH`` with a path relative to the current folder."""
    kind, _, path = text.partition(":")
    return f"file:{from_here(folder, path)}" if kind == "file" else text


def _below(folder: Path) -> str:
    """Return the current folder relative to `folder`, or "" if it is not below it."""
    here = Path.cwd()
    return (
        posixpath.normpath(here.relative_to(folder).as_posix())
        if here != folder and here.is_relative_to(folder)
        else ""
    )


def project_of(file: Path | None, known: Sequence[Setting]) -> Project:
    """Read settings from `file`, or from the nearest file; raise :class:`UsageError` with file and line."""
    found = _table_in(file, asked_for=True) if file else _nearest()
    if found is None:
        return Project()
    path, text, table, root = found
    try:
        settings = read_settings(table, known)
    except Wrong as wrong:
        line = line_of(text, wrong.where, root)
        where = ".".join(str(part) for part in (*root, *wrong.where))
        at = f"{path}, line {line}" if line else str(path)
        raise UsageError(f"{at}: {where}: {wrong}", hint=wrong.hint) from None
    for parameters in (
        settings.parameters,
        *(override.parameters for override in settings.overrides),
        *(values for job in settings.jobs.values() for values in (job.parameters, job.matrix)),
    ):
        check_values(parameters, str(path))
    return Project(path.parent.absolute(), settings)


def _nearest() -> tuple[Path, str, Any, Sequence[str]] | None:
    here = Path.cwd()
    for folder in (here, *here.parents):
        for name in ("nbrun.toml", "pyproject.toml"):
            path = folder / name
            if path.is_file() and (found := _table_in(path, asked_for=False)):
                return found
        if (folder / ".git").exists():
            break
    return None


def _table_in(path: Path, *, asked_for: bool) -> tuple[Path, str, Any, Sequence[str]] | None:
    """Return the path, the text, the table of settings and its keys, or None for a pyproject.toml without one."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: the settings cannot be read: {error.strerror}", hint=_HINT_OTHER) from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start})", hint=f"Save it as UTF-8. {_HINT_OTHER}"
        ) from None
    if len(data) > LARGEST:
        raise UsageError(f"{path}: larger than {LARGEST} bytes", hint=_HINT_OTHER)
    try:
        content = read_toml(text)
    except ValueError as error:
        if not asked_for and path.name == "pyproject.toml" and "nbrun" not in text:
            return None
        raise UsageError(f"{path}: not readable as TOML: {error}", hint=_HINT_OTHER) from None
    tool = content.get("tool")
    ours = tool.get("nbrun") if isinstance(tool, dict) else None
    if path.name != "pyproject.toml":
        if ours is not None and "nbrun" not in content:
            raise UsageError(
                f"{_at(path, text, ('tool', 'nbrun'))}: [tool.nbrun] is for pyproject.toml",
                hint=f"In {path.name} the same settings stand at the top: without [tool.nbrun], and [parameters] for "
                "[tool.nbrun.parameters].",
            )
        if isinstance(content.get("nbrun"), dict):
            raise UsageError(
                f"{_at(path, text, ('nbrun',))}: there is no table [nbrun]",
                hint=f"In {path.name} settings stand at the top, in pyproject.toml below [tool.nbrun].",
            )
        return path, text, content, ()
    if isinstance(content.get("nbrun"), dict):
        raise UsageError(
            f"{_at(path, text, ('nbrun',))}: [nbrun] is not read", hint="In pyproject.toml, write [tool.nbrun]."
        )
    if ours is None:
        if asked_for:
            raise UsageError(
                f"{path}: there is no [tool.nbrun] in it", hint="--config names a file of settings; write them there."
            )
        return None
    return path, text, ours, ("tool", "nbrun")


def _at(path: Path, text: str, where: Sequence[str]) -> str:
    """Return the file and the line of the first table at or below `where`, for messages."""
    header = re.search(rf"^[ \t]*\[+[ \t]*{'[ .]*'.join(map(re.escape, where))}\b", text, re.MULTILINE)
    line = text.count("\n", 0, header.end()) + 1 if header else line_of(text, tuple(where))
    return f"{path}, line {line}" if line else str(path)
