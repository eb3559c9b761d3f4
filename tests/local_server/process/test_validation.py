"""The quick check accepts only notebooks that nbformat accepts, and describes errors as nbformat does."""

import copy
from collections.abc import Iterator
from typing import Any

import nbformat
import pytest
from nbformat.validator import get_validator

from nbrun.local_server.process.validation import QuickValidator, is_surely_valid

NOTEBOOK: dict[str, Any] = {
    "metadata": {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python", "codemirror_mode": {"name": "ipython"}, "file_extension": ".py"},
        "orig_nbformat": 4,
        "title": "A title",
        "authors": [{"name": "A"}],
        "widgets": {"state": {}},
    },
    "nbformat": 4,
    "nbformat_minor": 5,
    "cells": [
        {
            "cell_type": "code",
            "id": "a-1_B",
            "metadata": {
                "tags": ["a", "b"],
                "name": "first",
                "collapsed": False,
                "scrolled": "auto",
                "jupyter": {"source_hidden": True},
                "execution": {"iopub.status.busy": "2026-01-01T00:00:00Z"},
                "other": [1, None],
            },
            "source": "1 + 1",
            "execution_count": 1,
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["a\n", "b"]},
                {"output_type": "display_data", "metadata": {}, "data": {"image/png": "AA==", "text/html": ["a", "b"]}},
                {
                    "output_type": "execute_result",
                    "metadata": {"image/png": {"width": 1}},
                    "data": {"application/json": {"a": [1.5]}, "application/vnd.x+json": None},
                    "execution_count": 1,
                },
                {"output_type": "error", "ename": "E", "evalue": "e", "traceback": ["line"]},
            ],
        },
        {
            "cell_type": "markdown",
            "id": "m",
            "metadata": {},
            "source": ["# A\n", "b"],
            "attachments": {"a.png": {"image/png": "AA=="}},
        },
        {"cell_type": "raw", "id": "r", "metadata": {"format": "text/html"}, "source": ""},
    ],
}
OTHERS: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.0,
    1.5,
    "",
    "x",
    "a,b",
    "a\n",
    [],
    ["x", "x"],
    ["a,b"],
    [1],
    {},
    {"x": 1},
    {"x": "y"},
)


def of_minor(minor: int) -> dict[str, Any]:
    notebook = {**copy.deepcopy(NOTEBOOK), "nbformat_minor": minor}
    for cell in notebook["cells"] if minor < 5 else ():
        del cell["id"]
    return notebook


def mutations(value: Any) -> Iterator[Any]:
    """Return copies of `value` in which one item is removed, replaced or added, at every depth."""
    if isinstance(value, dict):
        yield {**value, "added": 1}
        yield {**value, "added": "text"}
        for key, item in value.items():
            rest = {name: other for name, other in value.items() if name != key}
            yield rest
            yield from ({**rest, key: changed} for changed in (*OTHERS, *mutations(item)))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from ([*value[:place], changed, *value[place + 1 :]] for changed in (*OTHERS, *mutations(item)))


@pytest.mark.parametrize("minor", [2, 5])
def test_what_the_quick_check_accepts_is_valid(minor: int) -> None:
    notebook, schema = of_minor(minor), get_validator(4, minor)
    assert is_surely_valid(nbformat.from_dict(notebook), minor)
    left = valid = 0
    for changed in mutations(notebook):
        if is_surely_valid(changed, minor):
            assert not schema.iter_errors(changed)
        else:
            left += 1
            valid += not schema.iter_errors(changed)
    assert valid < left / 8  # nearly all valid notebooks are accepted


def test_ids_belong_to_notebooks_from_4_5_on() -> None:
    assert not is_surely_valid({**of_minor(4), "nbformat_minor": 5}, 5)
    assert not is_surely_valid({**of_minor(5), "nbformat_minor": 4}, 4)
    assert not is_surely_valid(of_minor(5), 4)


def test_errors_are_those_of_nbformat() -> None:
    notebook = of_minor(5)
    notebook["cells"][0]["outputs"][1]["data"]["image/png"] = 3
    for asked in ([notebook], [notebook["cells"][0], {"$ref": "#/definitions/code_cell"}]):
        quick, stock = QuickValidator(5).iter_errors(*asked), get_validator(4, 5).iter_errors(*asked)
        assert [str(error) for error in quick] == [str(error) for error in stock] != []
