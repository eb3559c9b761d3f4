"""Which runs passed before, by published records and by the history of this machine."""

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from nbrun.core.outputs.masking import MASK, Mask
from nbrun.publishing.history import RunRecord
from nbrun.publishing.missing import digest_of, in_digests, in_records
from tests.publishing.histories import record


def of_notebooks(*runs: tuple[str, str, dict[str, Any]]) -> RunRecord:
    """Return a record with notebooks of these paths, outcomes and parameters."""
    base = record(1)
    (one,) = base.notebooks
    made = [replace(one, path=path, outcome=outcome, parameters=given) for path, outcome, given in runs]
    return replace(base, notebooks=tuple(made))


@pytest.mark.parametrize(
    ("path", "parameters", "there"),
    [
        ("reports/sales.ipynb", {"day": "2026-11-01", "region": "EU"}, True),
        ("reports/sales.ipynb", {"region": "EU", "day": date(2026, 11, 1)}, True),
        ("sales.ipynb", {"day": "2026-11-01", "region": "EU"}, False),
        ("other/reports/sales.ipynb", {"day": "2026-11-01", "region": "EU"}, False),
        ("other/sales.ipynb", {"day": "2026-11-01", "region": "EU"}, False),
        ("reports/stock.ipynb", {"day": "2026-11-01", "region": "EU"}, False),
        ("reports/sales.ipynb", {"day": "2026-11-01"}, False),
        ("reports/sales.ipynb", {"day": "2026-11-01", "region": None}, False),
        ("reports/sales.ipynb", {"day": "2026-11-02", "region": "EU"}, False),
        ("reports/sales.ipynb", {"day": "2026-11-03", "region": MASK}, True),
        ("reports/sales.ipynb", {"day": "2026-11-03", "region": "hunter2"}, True),
    ],
)
def test_a_run_is_there_if_it_passed_with_the_same_parameters(
    path: str, parameters: dict[str, Any], there: bool
) -> None:
    name = "reports/sales.ipynb"
    records = [
        of_notebooks(
            (name, "passed", {"day": "2026-11-01", "region": "EU"}),
            (name, "failed", {"day": "2026-11-02", "region": "EU"}),
        ),
        of_notebooks((name, "passed", {"day": "2026-11-03", "region": MASK})),
    ]
    locate = {f"here/{path}": path}.__getitem__
    assert in_records(records, Mask(["hunter2"]).value, locate)(f"here/{path}", parameters) is there


def test_a_run_on_this_machine_is_there_by_its_digest() -> None:
    is_there = in_digests(
        [digest_of("/home/me/sales.ipynb", {"day": "2026-11-01", "n": 1})], lambda path: f"/home/me/{path}"
    )
    assert is_there("sales.ipynb", {"n": 1, "day": "2026-11-01"})
    assert not is_there("sales.ipynb", {"n": "1", "day": "2026-11-01"})
    assert not is_there("stock.ipynb", {"n": 1, "day": "2026-11-01"})
