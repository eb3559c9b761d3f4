"""Which cached results are valid, and how they are put back."""

import copy
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from nbrun.core.batch.cache_key import (
    FORMAT,
    Ingredients,
    cached_outputs,
    cached_results,
    declared_inputs,
    is_cacheable,
    restore,
    run_hash,
)
from nbrun.core.delivery.loss_mark import Cause, Incomplete
from nbrun.core.notebook.document import Document
from nbrun.core.notebook.tags import INJECTED_TAG
from nbrun.core.planning.job import Job
from nbrun.core.results import CellError, CellOutcome, CellResult, NotebookResult, Outcome
from tests.support.notebooks import code, markdown, notebook, stdout

INGREDIENTS = Ingredients({"a": 1}, {"name": "python3"}, {"data.csv": "abc"}, "0.1.0")
JOB = Job("nb.ipynb")
SOURCE = notebook(markdown("# title"), "print(1)", code("1/0", tags=["raises-exception"]))


def document(content: Any = SOURCE) -> Document:
    return Document(copy.deepcopy(content))


def hash_of(content: Any = SOURCE, job: Job = JOB, **others: Any) -> str:
    return run_hash(document(content), job, structs.replace(INGREDIENTS, **others))


def test_what_changes_no_output_changes_no_hash() -> None:
    moved = notebook(code("print(1)", outputs=[stdout("old")], count=9), markdown("more"), SOURCE["cells"][2])
    moved["cells"][0]["metadata"]["tags"] = ["a-tag-that-steers-nothing"]
    moved["cells"].append(code("a = 1", tags=[INJECTED_TAG]))
    assert hash_of(moved) == hash_of() == hash_of(version="0.9.9") == hash_of(job=Job("other.ipynb", save=False))


@pytest.mark.parametrize(
    "others",
    [
        {"parameters": {"a": 2}},
        {"parameters": {"a": "1"}},
        {"kernel": {"name": "ir"}},
        {"inputs": {"data.csv": "abd"}},
        {"inputs": {}},
        {"version": "1.0.0"},
        {"job": Job("nb.ipynb", allow_errors=True)},
        {"job": Job("nb.ipynb", report_mode=True)},
        {"job": Job("nb.ipynb", language="r")},
        {"job": Job("nb.ipynb", env={"A": "1"})},
        {"cwd": "../data"},
        {"content": notebook("print(2)", SOURCE["cells"][2])},
        {"content": notebook("print(1)", "1/0")},
        {"content": notebook("print(1)")},
    ],
    ids=str,
)
def test_what_may_change_an_output_changes_the_hash(others: dict[str, Any]) -> None:
    assert hash_of(**others) != hash_of()


@pytest.mark.parametrize(
    ("depends", "patterns"),
    [("a.csv", ["a.csv"]), (["a.csv", 3, "b/*"], ["a.csv", "b/*"]), (None, []), ({"a": 1}, [])],
)
def test_declared_inputs_are_read_from_the_metadata(depends: Any, patterns: list[str]) -> None:
    assert declared_inputs(document(notebook("1", nbrun={"depends": depends}))) == patterns


def test_odd_tags_are_no_tags() -> None:
    content = notebook("1")
    plain = hash_of(content)
    content["cells"][0]["metadata"]["tags"] = "raises-exception"
    assert hash_of(content) == plain


def executed() -> tuple[Document, NotebookResult]:
    """Return a notebook as it is after a run that injected a cell, and what came of it."""
    cells = [*copy.deepcopy(SOURCE["cells"]), code("a = 1", tags=[INJECTED_TAG])]
    cells = [cells[0], cells[1], cells[3], cells[2]]
    done = document(notebook(*cells))
    done.record(1, [stdout("1\n")], 1, {})
    done.record(2, [], 2, {})
    done.record(3, [], 3, {})
    done.metadata["language_info"] = {"name": "python"}
    done.mark_run({"outcome": "passed"})
    error = CellError("ZeroDivisionError", "division by zero", ["trace"])
    results = [
        CellResult(1, "cell-2", CellOutcome.PASSED, 1, 0.5),
        CellResult(2, "x", CellOutcome.PASSED, 2, 0.1),
        CellResult(3, "cell-3", CellOutcome.PASSED, 3, 0.1, error),
    ]
    return done, NotebookResult("", "nb", "nb", "python3", Outcome.PASSED, "", 1.0, results)


def test_outputs_are_put_back_though_text_was_added() -> None:
    done, result = executed()
    now = document(notebook(markdown("new"), markdown("# title"), "print(1)", SOURCE["cells"][2]))
    restored = restore(now, cached_outputs(done), cached_results(result))
    assert restored is not None
    assert restored.kernel == "python3"
    assert [(cell.index, cell.execution_count) for cell in restored.cells] == [(2, 1), (3, 2), (4, 3)]
    assert restored.cells[2].error == CellError("ZeroDivisionError", "division by zero", ["trace"])
    assert [cell["source"] for _, cell in now.code_cells()] == ["print(1)", "a = 1", "1/0"]
    assert now.cells[2]["outputs"] == [stdout("1\n")]
    assert len({cell["id"] for cell in now.cells}) == len(now.cells)
    assert now.metadata["language_info"] == {"name": "python"}
    assert now.metadata["nbrun"]["run"] == {"outcome": "passed"}


def test_an_error_that_was_allowed_is_still_allowed_when_it_is_put_back() -> None:
    done, result = executed()
    failed = structs.replace(result.cells[2], outcome=CellOutcome.FAILED, allowed=True, number=3)
    result = replace(result, cells=[*result.cells[:2], failed])
    restored = restore(document(notebook("print(1)", "1/0")), cached_outputs(done), cached_results(result))
    assert restored is not None
    assert (restored.cells[2].allowed, restored.cells[2].number, restored.cells[2].is_fault) == (True, 3, False)


def test_an_injected_cell_takes_the_place_of_an_older_one() -> None:
    done, result = executed()
    now = document(notebook(code("a = 0", tags=[INJECTED_TAG]), "print(1)", code("1/0"), minor=4))
    assert restore(now, cached_outputs(done), cached_results(result)) is not None
    assert [cell["source"] for cell in now.cells] == ["print(1)", "a = 1", "1/0"]
    assert all("id" not in cell for cell in now.cells)


def test_a_cell_injected_before_all_others_comes_back_there() -> None:
    done = document(notebook(code("a = 1", tags=[INJECTED_TAG]), "1"))
    results = [CellResult(index, None, CellOutcome.PASSED) for index in (0, 1)]
    result = NotebookResult("", "nb", None, None, Outcome.PASSED, "", 1.0, results)
    now = document(notebook(markdown("title"), "1"))
    assert restore(now, cached_outputs(done), cached_results(result)) is not None
    assert [cell["source"] for cell in now.cells] == ["title", "a = 1", "1"]
    alone = document(notebook(code("a = 1", tags=[INJECTED_TAG])))
    empty = document(notebook(markdown("title")))
    one = replace(result, cells=results[:1])
    assert restore(empty, cached_outputs(alone), cached_results(one)) is not None
    assert [cell["source"] for cell in empty.cells] == ["a = 1", "title"]


def test_what_does_not_fit_changes_nothing() -> None:
    done, result = executed()
    outputs, results = cached_outputs(done), cached_results(result)
    now = document(notebook("only one"))
    before = copy.deepcopy(now.content)
    assert restore(now, outputs, results) is None
    assert restore(now, {**outputs, "format": FORMAT - 1}, results) is None
    assert restore(now, {**outputs, "cells": None}, results) is None
    assert restore(now, outputs, {}) is None
    assert restore(document(), outputs, {**results, "cells": []}) is None
    assert now.content == before


def test_only_what_passed_whole_is_cacheable() -> None:
    _, result = executed()
    assert is_cacheable(result)
    assert not is_cacheable(replace(result, outcome=Outcome.FAILED))
    lossy = structs.replace(result.cells[0], incomplete=Incomplete((Cause.RATE_LIMIT,)))
    assert not is_cacheable(replace(result, cells=[lossy]))
