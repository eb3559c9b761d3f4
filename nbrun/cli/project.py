"""The project's settings for a single notebook, for the pytest plug-in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from nbrun.cli.call import read_options
from nbrun.cli.config.files import current_project, overrides_for
from nbrun.cli.options.generated import read_fields
from nbrun.cli.options.parameters import ParameterTexts, read_env, read_parameters
from nbrun.cli.run import command
from nbrun.core.batch.terms import Override
from nbrun.core.formats.globs import Patterns
from nbrun.errors import UsageError
from nbrun.runner.batch.plan import options_of_one
from nbrun.runner.job import RunOptions


@dataclass(frozen=True, slots=True)
class ProjectOptions:
    """The options of all runs, the overrides for some notebooks, and the folder that these are relative to."""

    folder: Path
    options: RunOptions
    overrides: Sequence[Override]

    def of(self, notebook: Path) -> RunOptions | None:
        """Return the options of one notebook's run, or None if it is skipped."""
        if not notebook.is_relative_to(self.folder):
            return options_of_one(self.options, [])
        name = notebook.relative_to(self.folder).as_posix()
        return options_of_one(self.options, [one for one in self.overrides if Patterns(one.match).name(name)])


def project_options(arguments: Sequence[str]) -> ProjectOptions:
    """Return the nearest settings and `arguments`, which are options of ``nbrun run`` and take precedence.

    Raises :class:`UsageError`, with file and line for an invalid setting.
    """
    try:
        with command.make_context("nbrun run", list(arguments)) as context:
            project = current_project()
            options = read_options(context, context.params)
            options["engine"] = None  # a test runs on one server
            texts = read_fields(ParameterTexts, context.params)
            # Injected paths are for single runs.
            texts = replace(texts, inject_input_path=False, inject_output_path=False, inject_paths=False)
            parameters, options["secrets"] = read_parameters(texts, None, None)
            options["env"] = read_env(texts)
            overrides = overrides_for(context, project, parameters)
            options["parameters"] = {**project.parameters, **parameters}
            return ProjectOptions(project.folder, options, overrides)
    except click.ClickException as error:
        raise UsageError(error.format_message()) from None
