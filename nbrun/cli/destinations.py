"""Check the paths of a call and the choice between ``-o``, ``--no-save`` and ``--in-place``."""

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from nbrun.cli.options.parameters import ParameterTexts, fill_templates
from nbrun.cli.options.reports import TARGETS, ReportOptions
from nbrun.core.batch.output_paths import Fields, Stamp, Template, is_template, template_of_all
from nbrun.core.planning.destinations import (
    GIT_SCHEMES,
    is_source_url,
    is_store_url,
    refuse_unreachable,
    scheme_of,
    without_credentials,
)
from nbrun.errors import UsageError
from nbrun.runner.job import BatchOptions, is_on_server
from nbrun.storage.writable import is_folder, is_there

_STORED = ("-o", "--html", "--pdf", "--json", "--junit", "--events")
"""The options whose value can be the URL of a store."""


def is_single(notebooks: Sequence[str], options: BatchOptions) -> bool:
    """Return whether the command names a single notebook that is run once."""
    from nbrun.core.formats.globs import is_glob

    if len(notebooks) != 1 or options["matrix"]:
        return False
    (name,) = notebooks
    if name == "-" or is_source_url(name):  # standard input or a URL, wherever it is run
        return True
    if is_on_server(options):
        return name.endswith(".ipynb") and not is_glob(name)
    return not is_folder(name) and (is_there(name) or not is_glob(name))


def check_paths(
    named: Sequence[str], options: BatchOptions, parameters: ParameterTexts, reports: ReportOptions
) -> None:
    """Raise :class:`UsageError` for paths that nbrun can neither read nor write, such as URLs."""
    for name in named:
        refuse_unreachable("" if name else "PATH", name, reads=True, stores=True)
        _check_url("", name)
    written = {"-o": options["output"], **reports.targets(), "--cache": options["cache"]}
    for option, path in written.items():
        if path is not None:
            refuse_unreachable(option, os.fspath(path), stores=option in _STORED)
    if options["output"] is not None:
        _check_url("-o", os.fspath(options["output"]))
    if reports.publish is not None:
        refuse_unreachable("--publish", reports.publish, stores=True)
    for path in parameters.parameters_file:
        refuse_unreachable("-f", path, reads=True, stores=True)
        _check_url("-f", path)
    for pair in parameters.secret_file:
        if path := pair.partition("=")[2]:
            refuse_unreachable("--secret-file", path, reads=True)
    if options["cwd"] is not None and not options["cwd"]:
        raise UsageError("--cwd: the path is empty", hint="Is the variable set that it comes from?")


def _check_url(option: str, url: str) -> None:
    """Raise :class:`UsageError` for the URL of a store that names nothing, or whose extra is not installed."""
    if not is_store_url(url):
        if scheme_of(url) in GIT_SCHEMES and "#" not in url:
            hint = "Write git+https://HOST/REPOSITORY@REF#PATH/NOTEBOOK.ipynb."
            raise UsageError(f"{option} {without_credentials(url)}: which file is it?".strip(), hint=hint)
        return
    from nbrun.storage.object_stores.by_url import open_parent, open_store

    try:
        if option == "-o" and url.endswith("/"):
            open_store(url)
        else:
            open_parent(url)
    except UsageError as error:
        raise UsageError(f"{option} {error}".strip(), hint=error.hint) from None


class Paths:
    """Resolves the paths of a command: folders and templates become files once their values are known.

    ``notebook`` is the notebook of a single run, ``when`` the time that the run is for. A report on several notebooks
    can use only the date and the run id.
    """

    def __init__(self, options: BatchOptions, reports: ReportOptions, notebook: str | None, when: datetime) -> None:
        """Resolve the paths that need no parameters; raise :class:`UsageError`."""
        self._reports = reports
        self._notebook = notebook
        self._stamp = Stamp(when, os.urandom(4).hex())
        self._late: dict[str, str] = {}
        self._on_server = is_on_server(options)
        for name, option in TARGETS.items():
            path = getattr(reports, name)
            if path is not None and is_template(path):
                setattr(reports, name, self._filled(option, path, {}, late=name))
        trace = options["trace"]
        if trace is not None and is_template(os.fspath(trace)):
            options["trace"] = self._filled("--trace", os.fspath(trace), {})
        if options["output"] is not None and options["deliver"] is None:
            options["output"] = self._output(os.fspath(options["output"]), streams=options["content"] is not None)

    def _output(self, output: str, *, streams: bool) -> Any:
        from nbrun.storage.paths import names_folder, output_file

        if is_template(output):
            return Template(output, self._stamp)
        if self._notebook is None:
            return output
        if streams and names_folder(output, on_server=self._on_server):
            raise UsageError(f"-o {output}: a folder, and a notebook from a stream has no name", hint="Name the file.")
        return output_file(self._notebook, output, on_server=self._on_server)

    def fill_in(self, parameters: Mapping[str, Any]) -> bool:
        """Resolve the paths that need parameters; return whether there were any."""
        for name, path in self._late.items():
            setattr(self._reports, name, self._filled(TARGETS[name], path, parameters))
        return bool(self._late)

    def fill_templates(self, templates: Mapping[str, Template], parameters: Mapping[str, Any]) -> dict[str, str]:
        """Return the values of parameters with templates."""
        notebook = None if self._notebook is None else self._tree(self._notebook)
        return fill_templates(templates, notebook, self._stamp, parameters)

    def _tree(self, notebook: str) -> str:
        from nbrun.storage.paths import tree_path

        return notebook.strip("/") if self._on_server else tree_path(notebook)

    def _filled(self, option: str, path: str, parameters: Mapping[str, Any], *, late: str = "") -> str | None:
        if self._notebook is None:
            return template_of_all(option, path, self._stamp)
        template = Template(path)
        if late and template.parameters:
            self._late[late] = path
            return None
        return template.fill(Fields(self._tree(self._notebook), 1, self._stamp.when, self._stamp.run_id, parameters))
