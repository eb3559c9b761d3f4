"""Create click options from the declarations in :mod:`nbrun.runner.options`."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from nbrun.core.planning.option_types import (
    Checked,
    Choice,
    Flag,
    Kind,
    Option,
    PathName,
    PathOrTrue,
    Text,
    Texts,
    options_in,
)
from nbrun.errors import UsageError
from nbrun.runner.options import SharedBatchOptions, SharedRunOptions
from nbrun.runner.report_options import SharedReportOptions, SharedScheduleOptions

Function = TypeVar("Function", bound=Callable[..., Any])
Group = TypeVar("Group")
Callback = Callable[[click.Context, click.Parameter, Any], Any]
_GROUPS = (SharedRunOptions, SharedBatchOptions, SharedReportOptions, SharedScheduleOptions)
_DECLARED = {name: option for group in _GROUPS for name, option in options_in(group).items()}
OF_RUN = [name for name, option in options_in(SharedRunOptions).items() if option.flags is not None]
"""The options of a run on the command line, by their names in Python."""
OF_BATCH = [name for name, option in options_in(SharedBatchOptions).items() if option.flags is not None]
"""The options of a batch on the command line, by their names in Python."""


class Value(click.ParamType[Any]):
    """A click type for the values of an option's :class:`Kind`."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.name = type(kind).__name__.lower()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value of an argument or of a setting."""
        try:
            return self.kind.parse(value) if isinstance(value, str) else self.kind.read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class DeclaredOption(click.Option):
    """A click option with its declaration and its name in Python."""

    def __init__(self, *args: Any, declared: Option, key: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.declared = declared
        self.key = key


def declared(*names: str, **callbacks: Callback) -> Callable[[Function], Function]:
    """Add the options with these names, in this order; `callbacks` are click's, by name."""

    def add(function: Function) -> Function:
        for name in reversed(names):
            function = _decorator(name, _DECLARED[name], callbacks.get(name))(function)
        return function

    return add


def parameter_name(name: str) -> str:
    """Return click's name of an option: that of its flag if the flag negates the option."""
    option = _DECLARED[name]
    return option.setting(name).replace("-", "_") if option.is_opposite else name


def read_declared(names: list[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with these names in the form of the Python API, from click's parameters."""
    found = {}
    for name in names:
        parameter = parameter_name(name)
        if parameter in given:
            found[name] = not given[parameter] if _DECLARED[name].is_opposite else given[parameter]
    return found


def read_fields(kind: type[Group], given: Mapping[str, Any]) -> Group:
    """Return a dataclass whose fields have the names of click's parameters."""
    return kind(**{field.name: given[field.name] for field in fields(kind) if field.init})  # type: ignore[arg-type]


def _refuse_on_command_line(context: click.Context, option: click.Parameter, value: Any) -> Any:
    if option.name and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
        raise UsageError(
            f"{option.opts[0]} is a setting of a batch, and nbrun starts nothing by itself",
            hint="Write it into [tool.nbrun.batch.NAME]; nbrun schedule export writes a timer or a cron line.",
        )
    return value


def _decorator(name: str, option: Option, callback: Callback | None) -> Callable[[Function], Function]:
    attributes: dict[str, Any] = {"help": option.help, "callback": callback, "metavar": option.metavar}
    if option.only_setting:
        attributes |= {"hidden": True, "callback": _refuse_on_command_line}
    default = option.kind.spell(option.default) if option.default else option.default
    match option.kind:
        case Flag():
            attributes |= {"is_flag": True, "default": None if option.default is None else False}
        case Texts():
            attributes |= {"multiple": True}
        case Choice() as kind:
            attributes |= {"type": click.Choice(kind.words), "default": default}
        case PathOrTrue() as kind:
            attributes |= {"type": Value(kind)}
        case PathName(exists=True):
            attributes |= {"type": click.Path(exists=True, dir_okay=False, path_type=Path)}
        case PathName(folder=True):
            attributes |= {"type": click.Path(file_okay=False)}
        case PathName() | Text() if not isinstance(option.kind, Checked):
            pass
        case kind:
            attributes |= {"type": Value(kind), "default": default, "show_default": option.show_default}
    spelled = [*option.spellings(name), parameter_name(name)]
    return click.option(*spelled, cls=DeclaredOption, declared=option, key=name, **attributes)
