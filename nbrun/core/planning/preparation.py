"""Prepare a notebook for its run: parameters are added as a cell, secrets only to the plan.

``nbrun plan`` uses the same function, so it reports the same errors as a run.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from nbrun.core.notebook.document import Document
from nbrun.core.outputs.masking import is_too_short
from nbrun.core.parameters.inject import declared, set_parameters
from nbrun.core.parameters.literals.base import LiteralWriter
from nbrun.core.planning.job import Job
from nbrun.core.planning.plan import Plan, make_plan, with_preparation
from nbrun.errors import UsageError

FindWriter = Callable[[str, str], LiteralWriter]
"""Returns the writer of literals for a kernel and its language; raises :class:`UsageError` if there is none."""


class Prepared(Struct, frozen=True):
    """The plan, the injected parameters, and warnings."""

    plan: Plan
    parameters: Mapping[str, Any]
    warnings: Sequence[str]


def prepare(
    document: Document,
    job: Job,
    kernel: str,
    language: str,
    find_writer: FindWriter,
    *,
    env: Mapping[str, str] = MappingProxyType({}),
) -> Prepared:
    """Inject the job's parameters into `document`, and plan the run, which sets the secrets and `env` silently.

    `env` has the environment variables for a kernel that is started without them.

    A writer is searched only if there is a value to write. Raises :class:`UsageError`, and :class:`NotANotebook` for an
    invalid plan.
    """
    if twice := job.secrets.keys() & job.parameters.keys():
        raise UsageError(f"{job.notebook}: {', '.join(sorted(twice))} is given as a parameter and as a secret")
    written = job.language or language
    parameters: Mapping[str, Any] = {}
    warnings: list[str] = []
    if job.parameters:
        writer = find_writer(job.language or kernel, written)
        parameters, warnings = set_parameters(
            document, job.parameters, writer, written, job.notebook, allow_new=job.allow_new
        )
    if job.report_mode:
        document.hide_sources()
    plan = make_plan(document, job)
    if job.secrets:
        short = [name for name, value in job.secrets.items() if is_too_short(value)]
        warnings += [f"the secret {name} is too short to be masked in the outputs" for name in short]
        first, again, after = _secret_code(document, job.secrets, find_writer(job.language or kernel, written), written)
        plan = with_preparation(plan, first, again, after)
    if env:
        plan = with_preparation(plan, find_writer(job.language or kernel, written).environment(env), "", None)
    return Prepared(plan, parameters, warnings)


def _secret_code(
    document: Document, secrets: Mapping[str, str], writer: LiteralWriter, language: str
) -> tuple[str, str, int | None]:
    """Return the code that sets the secrets, the code that sets them again, and the cell after which it does so."""
    known = declared(document, language)
    # Declared names are set after their declaration only, because some languages allow only one declaration.
    new = {name: value for name, value in secrets.items() if name not in known.names}
    return writer.cell(new, comment=""), writer.cell(secrets, comment="", declared=secrets), known.index
