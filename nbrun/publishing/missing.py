"""Which runs of a batch passed before, by notebook and parameters (``--missing-only``).

A notebook is known by its path from the folder of the settings, so the current folder makes no difference. The
published records have these paths and the parameters. The history of this machine has only digests of them.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nbrun.core.formats.json_text import dumps
from nbrun.core.parameters.literals.base import recordable
from nbrun.core.results import Outcome
from nbrun.publishing.history import RunRecord

IsThere = Callable[[str, Mapping[str, Any]], bool]
"""Returns whether the run of a notebook with these parameters passed before."""


def digest_of(path: str, parameters: Mapping[str, Any]) -> str:
    """Return the digest of a path and parameters for the history of this machine."""
    return hashlib.sha256(dumps([path, _comparable(parameters)])).hexdigest()[:16]


def _comparable(parameters: Mapping[str, Any]) -> str:
    values = recordable(parameters)
    return dumps({name: values[name] for name in sorted(values)}).decode()


def in_records(records: Sequence[RunRecord], mask: Callable[[Any], Any], locate: Callable[[str], str]) -> IsThere:
    """Return the test for published records; `mask` replaces secrets in parameters, as it did in the records."""
    passed = {
        (notebook.path, _comparable(notebook.parameters))
        for record in records
        for notebook in record.notebooks
        if notebook.outcome == Outcome.PASSED.value
    }
    return lambda path, parameters: (locate(path), _comparable(mask(recordable(parameters)))) in passed


def in_digests(digests: Iterable[str], locate: Callable[[str], str]) -> IsThere:
    """Return the test for the history of this machine."""
    passed = {*digests}
    return lambda path, parameters: digest_of(locate(path), parameters) in passed
