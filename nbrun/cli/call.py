"""Turn the command line of ``nbrun run`` into typed options; no other module sees click's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

from nbrun.cli.config.files import Project
from nbrun.cli.destinations import check_paths, is_single
from nbrun.cli.options.batch import read_matrix
from nbrun.cli.options.generated import OF_BATCH, OF_RUN, read_declared, read_fields
from nbrun.cli.options.parameters import ParameterTexts
from nbrun.cli.options.reports import ReportOptions, settle_pdf
from nbrun.cli.options.server import access_options
from nbrun.cli.stdio import read_streams
from nbrun.core.planning.destinations import (
    CHOICE_OPTIONS,
    MATRIX,
    SETTINGS,
    refuse_contradiction,
    require_choice,
    without_credentials,
)
from nbrun.errors import UsageError
from nbrun.runner.job import BatchOptions, check_choice, engine_name, is_on_server, read_batch_options


@dataclass(slots=True)
class Call:
    """The notebooks and the options of a command.

    ``options`` are the options of the Python API, complete and checked, but parameters are still text. ``one`` is true
    for a single notebook that is run once.
    """

    named: Sequence[str]
    options: BatchOptions
    parameters: ParameterTexts
    reports: ReportOptions
    one: bool
    allow_empty: bool
    only_plan: bool

    @property
    def notebook(self) -> str | None:
        """Return the notebook of a single run, without the credentials of a URL, or None for several."""
        return without_credentials(self.named[0]) if self.one else None


def read_options(context: click.Context, given: Mapping[str, Any]) -> BatchOptions:
    """Return the declared options from the command line and the settings; raise :class:`UsageError`."""
    settled = _settled(context, given)
    return read_batch_options({**read_declared([*OF_RUN, *OF_BATCH], settled), **access_options(settled)})


def read_call(context: click.Context, notebooks: Sequence[str], given: Mapping[str, Any], project: Project) -> Call:
    """Read the command line and standard input; raise :class:`UsageError` for invalid combinations."""
    options = read_options(context, given)
    if options["engine"]:
        options["engine_options"] = project.settings.engines.get(engine_name(options["engine"]), {})
    if options["upload"] and not (options["server"] or options["engine"]):
        raise UsageError("--upload needs --server or --engine", hint="Without it the notebook is run where it is.")
    if options["refresh"] and not options["cache"]:
        raise UsageError("--no-cache-read needs --cache")
    named = [*notebooks] or project.notebooks(on_server=is_on_server(options))
    if not named:
        raise click.MissingParameter(param_hint="'PATH...'", param_type="argument")
    options["matrix"] = {**project.matrix, **read_matrix(given["matrix"], quiet=given["quiet"])}
    if given["fail_fast"]:
        options["max_failures"] = 1
    parameters, reports = read_fields(ParameterTexts, given), read_fields(ReportOptions, given)
    settle_pdf(reports)
    check_paths(named, options, parameters, reports)
    if reports.publish is not None:
        if options["prepare_only"]:
            raise UsageError("--publish: nothing is executed with --prepare-only")
        if not check_choice(options):
            options["save"] = False  # the published notebook is the result
    chosen = check_choice(options)
    one = is_single(named, options)
    named = read_streams(named, options, one=one, only_plan=given["help_notebook"])
    if not chosen and not (one and (notebooks or options["content"] is not None)):
        require_choice(named, message=MATRIX if options["matrix"] else "" if notebooks else SETTINGS)
    return Call(named, options, parameters, reports, one, given["allow_empty"], given["help_notebook"])


def _settled(context: click.Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with one choice of destination and of the place of execution.

    The command line takes precedence over the settings.

    Raises :class:`UsageError` if two choices from the same source contradict each other.
    """

    def is_typed(name: str) -> bool:
        return context.get_parameter_source(name) is ParameterSource.COMMANDLINE

    settled = dict(given)
    made = [name for name in CHOICE_OPTIONS if given[name] not in (None, False)]
    counting = [name for name in made if is_typed(name)] or made
    refuse_contradiction([CHOICE_OPTIONS[name] for name in counting])
    for name in set(made) - set(counting):
        settled[name] = None if name == "output" else False
    if given["engine"] and given["server"] and is_typed("engine") != is_typed("server"):
        settled["server" if is_typed("engine") else "engine"] = None
    if is_typed("on_conflict") and not is_typed("force"):
        settled["force"] = False
    if is_typed("force") and not is_typed("on_conflict"):
        settled["on_conflict"] = None
    return settled
