"""Which cells run, which errors they may raise, and their time limits."""

import math
from typing import Any

import pytest

from nbrun.core.notebook.document import Document
from nbrun.core.planning.job import Job, Limits
from nbrun.core.planning.plan import (
    LARGEST_SOURCE,
    Action,
    CellPlan,
    Plan,
    make_plan,
    with_preparation,
)
from nbrun.errors import NotANotebook
from tests.core.notebook.test_document import code, content, markdown


def plan(*cells: dict[str, Any], job: Job | None = None, **metadata: Any) -> Plan:
    named = [{"id": f"id{index}", **cell} for index, cell in enumerate(cells)]
    return make_plan(Document(content(*named, **metadata)), job or Job("a.ipynb"))


def only(*cells: dict[str, Any], **more: Any) -> CellPlan:
    (cell,) = plan(*cells, **more).cells
    return cell


def tagged(*tags: Any) -> dict[str, Any]:
    return code(metadata={"tags": list(tags)})


# Which cells ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "action"),
    [
        (code("1"), Action.RUN),
        (code("# a comment"), Action.RUN),
        (code("%matplotlib inline"), Action.RUN),
        (code(""), Action.CLEAR),
        (code(" \n\t"), Action.CLEAR),
        (tagged("skip-execution"), Action.KEEP),
        (tagged("other", "skip-execution"), Action.KEEP),
        (tagged("skip"), Action.RUN),
        (code("", metadata={"tags": ["skip-execution"]}), Action.KEEP),
        (code(metadata={"tags": "skip-execution"}), Action.RUN),
        (code(metadata={"tags": [["skip-execution"], None, 7]}), Action.RUN),
    ],
    ids=[
        "code", "a comment", "a magic", "empty", "whitespace", "tagged", "tagged among others", "a similar tag",
        "empty and tagged", "tags no list", "odd tags",
    ],
)  # fmt: skip
def test_what_is_done_with_a_code_cell(cell: dict[str, Any], action: Action) -> None:
    assert only(cell).action is action


def test_only_code_cells_are_planned_and_only_those_to_run_are_sent() -> None:
    made = plan(markdown(), code("one"), code(""), {"cell_type": "raw", "metadata": {}, "source": "x"}, code("two"))
    assert [cell.index for cell in made.cells] == [1, 2, 4]
    assert [(cell.index, cell.id, cell.source) for cell in made.to_run] == [(1, "id1", "one"), (4, "id4", "two")]


def test_a_cell_of_a_version_without_ids_has_none() -> None:
    document = Document(content(code(), minor=4))
    assert make_plan(document, Job("a.ipynb")).cells[0].id is None


def test_a_cell_too_large_for_a_websocket_is_refused_before_anything_runs() -> None:
    with pytest.raises(NotANotebook, match=r"a\.ipynb: cell 2: its source is 9\.5 MB") as caught:
        plan(code("1"), code("#" * (LARGEST_SOURCE + 1)))
    assert "Move the data" in caught.value.hint


def test_size_counts_in_bytes_and_only_where_something_is_sent() -> None:
    assert only(code("#" * LARGEST_SOURCE)).action is Action.RUN
    with pytest.raises(NotANotebook, match="its source is"):
        plan(code("é" * (LARGEST_SOURCE // 2 + 1)))
    assert only(code("#" * (LARGEST_SOURCE + 1), metadata={"tags": ["skip-execution"]})).action is Action.KEEP


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "job", "metadata", "expects", "allows"),
    [
        (code(), Job("a"), {}, False, False),
        (tagged("raises-exception"), Job("a"), {}, True, False),
        (code(), Job("a", allow_errors=True), {}, False, True),
        (code(), Job("a"), {"execution": {"allow_errors": True}}, False, True),
        (code(), Job("a"), {"execution": {"allow_errors": "yes"}}, False, False),
        (code(), Job("a"), {"execution": 7}, False, False),
    ],
    ids=["plain", "tagged", "the call", "the notebook", "the notebook, not true", "the notebook, no object"],
)
def test_which_errors_end_the_run(
    cell: dict[str, Any], job: Job, metadata: dict[str, Any], expects: bool, allows: bool
) -> None:
    planned = only(cell, job=job, **metadata)
    assert (planned.expects_error, planned.allows_error) == (expects, allows)


# Limits --------------------------------------------------------------------------------------------------------------

CALL = Job("a.ipynb", limits=Limits(run=100, cell=10, silence=1))
THEIRS = {"nbrun": {"timeout": 200, "cell_timeout": 20, "idle_timeout": 2}}


def limits(made: Plan) -> tuple[float | None, float | None, float | None]:
    return made.run_timeout, made.cells[0].timeout, made.cells[0].idle_timeout


@pytest.mark.parametrize(
    ("own", "job", "metadata", "expected"),
    [
        ({}, None, {}, (None, None, None)),
        ({}, CALL, {}, (100, 10, 1)),
        ({}, None, THEIRS, (200, 20, 2)),
        ({}, CALL, THEIRS, (100, 10, 1)),
        ({"timeout": 5, "idle_timeout": 3}, CALL, THEIRS, (100, 5, 3)),
        ({"timeout": 5}, Job("a", limits=Limits(silence=1)), THEIRS, (200, 5, 1)),
        ({}, None, {"execution": {"timeout": 30}}, (None, 30, None)),
        ({}, None, {"execution": {"timeout": 30}, **THEIRS}, (200, 20, 2)),
        ({}, Job("a", limits=Limits(cell=math.inf)), THEIRS, (200, math.inf, 2)),
        ({"timeout": "none"}, CALL, {}, (100, math.inf, 1)),
        ({"timeout": 0}, CALL, {}, (100, math.inf, 1)),
        ({"timeout": -1}, CALL, {}, (100, math.inf, 1)),
        ({"timeout": "5m", "idle_timeout": 1.5}, None, {"nbrun": {"timeout": "1h"}}, (3600, 300, 1.5)),
        ({}, None, {"nbrun": "nonsense"}, (None, None, None)),
    ],
    ids=[
        "none", "the call", "the notebook", "the call before the notebook", "the cell before the call", "each alone",
        "nbmake's key", "our key before nbmake's", "the call says no limit", "the cell says none", "the cell says 0",
        "the cell says -1", "as text", "metadata no object",
    ],
)  # fmt: skip
def test_where_a_limit_comes_from(
    own: dict[str, Any], job: Job | None, metadata: dict[str, Any], expected: tuple[float | None, ...]
) -> None:
    assert limits(plan(code(metadata={"nbrun": own}), job=job, **metadata)) == expected


@pytest.mark.parametrize("value", ["soon", True, [5], {"s": 5}, "0", ""], ids=repr)
@pytest.mark.parametrize(
    ("of_cell", "of_notebook", "where"),
    [
        ("timeout", None, "a.ipynb: cell 1: metadata nbrun.timeout"),
        ("idle_timeout", None, "a.ipynb: cell 1: metadata nbrun.idle_timeout"),
        (None, ("nbrun", "timeout"), "a.ipynb: metadata nbrun.timeout"),
        (None, ("nbrun", "cell_timeout"), "a.ipynb: metadata nbrun.cell_timeout"),
        (None, ("nbrun", "idle_timeout"), "a.ipynb: metadata nbrun.idle_timeout"),
        (None, ("execution", "timeout"), "a.ipynb: metadata execution.timeout"),
    ],
    ids=["cell", "cell idle", "run", "every cell", "every idle", "nbmake's"],
)
def test_a_limit_that_is_none_is_refused_with_its_place(
    value: Any, of_cell: str | None, of_notebook: tuple[str, str] | None, where: str
) -> None:
    metadata: dict[str, Any] = {of_notebook[0]: {of_notebook[1]: value}} if of_notebook else {}
    own = {"nbrun": {of_cell: value}} if of_cell else {}
    with pytest.raises(NotANotebook) as caught:
        plan(code(metadata=own), **metadata)
    assert str(caught.value).startswith(f"{where}: ")
    assert caught.value.hint == "Mend the notebook's metadata, or take the key out."


def test_code_that_prepares_comes_before_the_first_cell_and_behind_the_one_that_is_named() -> None:
    document = Document(content(code(""), code("1"), code("2"), code("3")))
    plan = make_plan(document, Job("nb.ipynb"))

    def prepared(*preparation: Any) -> list[list[str]]:
        return [list(cell.before) for cell in with_preparation(plan, *preparation).cells]

    assert prepared("x", "y", 1) == [[], ["x"], ["y"], []]
    assert prepared("x", "y", 0) == [[], ["x", "y"], [], []]
    assert prepared("", "y", 2) == [[], [], [], ["y"]]
    assert prepared("x", "y", None) == [[], ["x"], [], []]
    assert prepared("x", "y", 3) == [[], ["x"], [], []]


def test_cells_that_run_are_numbered_from_1_and_others_are_not() -> None:
    cells = [
        code("1"),
        code(""),
        {"cell_type": "markdown", "source": "text"},
        code("2", metadata={"tags": ["skip-execution"]}),
    ]
    assert make_plan(Document(content(*cells, code("3"))), Job("nb.ipynb")).numbers == {0: 1, 4: 2}


def test_a_cell_without_a_number_is_named_by_its_index() -> None:
    skipped = code("1", metadata={"tags": ["skip-execution"], "nbrun": {"timeout": "soon"}})
    with pytest.raises(NotANotebook, match=r"^a\.ipynb: the cell at index 1: metadata nbrun\.timeout: "):
        plan(code("1"), skipped)
