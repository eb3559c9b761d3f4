"""Which runs of a batch passed before, by notebook and parameters (``--missing-only``).

The published records have the paths and the parameters of notebooks. The history of this machine has only digests of
them.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from nbrun.core.formats.json_text import dumps
from nbrun.core.parameters.literals.base import recordable
from nbrun.core.results import Outcome
from nbrun.publishing.history import RunRecord

IsThere = Callable[[str, Mapping[str, Any]], bool]
"""Returns whether the run of a notebook with these parameters passed before."""


def digest_of(path: str, parameters: Mapping[str, Any]) -> str:
    """Return the digest of a run for the history of this machine."""
    return hashlib.sha256(dumps([path, _comparable(parameters)])).hexdigest()[:16]


def _comparable(parameters: Mapping[str, Any]) -> str:
    values = recordable(parameters)
    return dumps({name: values[name] for name in sorted(values)}).decode()


def in_records(records: Sequence[RunRecord], mask: Callable[[Any], Any]) -> IsThere:
    """Return the test for published records; `mask` replaces secrets in parameters, as it did in the records."""
    passed: dict[str, list[str]] = {}
    for record in records:
        for notebook in record.notebooks:
            if notebook.outcome == Outcome.PASSED.value:
                passed.setdefault(_comparable(notebook.parameters), []).append(notebook.path or notebook.name)

    def is_there(path: str, parameters: Mapping[str, Any]) -> bool:
        return any(_is_same(path, other) for other in passed.get(_comparable(mask(recordable(parameters))), ()))

    return is_there


def _is_same(path: str, other: str) -> bool:
    """Return whether two paths, seen from two folders, can be the same notebook: one is the end of the other."""
    parts, others = (_parts(one) for one in (path, other))
    length = min(len(parts), len(others))
    return parts[-length:] == others[-length:]


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(path.replace("\\", "/")).parts if part not in ("..", "/"))


def in_digests(digests: Iterable[str], absolute: Callable[[str], str]) -> IsThere:
    """Return the test for the history of this machine; `absolute` returns the path that is in the digest."""
    passed = {*digests}
    return lambda path, parameters: digest_of(absolute(path), parameters) in passed
