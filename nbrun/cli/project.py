"""The project's settings for a single notebook, for the pytest plug-in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from nbrun.cli.config.files import current_project, overrides_for
from nbrun.cli.options.parameters import read_parameters
from nbrun.cli.run import command, run_options
from nbrun.core.batch.terms import Override
from nbrun.core.formats.globs import Patterns
from nbrun.errors import UsageError
from nbrun.runner.batch.plan import options_of_one
from nbrun.runner.job import RunOptions, read_run_options


@dataclass(frozen=True, slots=True)
class ProjectOptions:
    """The options of all runs, what differs for some notebooks, and the folder from which those are named."""

    folder: Path
    options: RunOptions
    overrides: Sequence[Override]

    def of(self, notebook: Path) -> RunOptions | None:
        """Return the options of one notebook's run; None where it is left out."""
        if not notebook.is_relative_to(self.folder):
            return options_of_one(self.options, [])
        name = notebook.relative_to(self.folder).as_posix()
        return options_of_one(self.options, [one for one in self.overrides if Patterns(one.match).name(name)])


def project_options(arguments: Sequence[str]) -> ProjectOptions:
    """Read the settings that are nearest to the current folder, below `arguments`, which are options of ``nbrun run``.

    Raises :class:`UsageError`, with file and line for a setting that is wrong.
    """
    try:
        with command.make_context("nbrun run", list(arguments)) as context:
            project = current_project()
            given = dict(context.params)
            given |= dict.fromkeys((name for name in given if name.startswith("inject_")), None)  # for single runs
            given |= read_parameters(given, None, None)
            overrides = overrides_for(context, project, given["parameters"])
            given["parameters"] = {**project.parameters, **given["parameters"]}
            return ProjectOptions(project.folder, read_run_options(run_options(given)), overrides)
    except click.ClickException as error:
        raise UsageError(error.format_message()) from None
