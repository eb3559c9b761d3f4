"""A run changes only its results in the notebook, and what would make it untrusted."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.core.delivery.loss_mark import Cause, Incomplete
from nbrun.core.notebook.document import Document
from nbrun.core.outputs.limit import Truncated
from nbrun.core.outputs.widgets import STATE_MIME
from nbrun.core.results import CellOutcome
from nbrun.errors import NotANotebook
from tests.core.properties import json_objects

FIXTURES = Path(__file__).parents[3] / "fixtures" / "notebooks"


def code(source: Any = "1", **more: Any) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None, **more}


def markdown(source: Any = "text", **more: Any) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source, **more}


def content(*cells: dict[str, Any], minor: int = 5, **metadata: Any) -> dict[str, Any]:
    return {"nbformat": 4, "nbformat_minor": minor, "metadata": metadata, "cells": list(cells)}


def ids(document: Document) -> list[Any]:
    return [cell.get("id") for cell in document.cells]


# What is a notebook --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ([], "no list of cells"),
        ({}, "no list of cells"),
        ({"nbformat": 4, "cells": {}}, "no list of cells"),
        ({"nbformat": 5, "nbformat_minor": 0, "cells": []}, "nbformat 5.0 is not one that nbrun knows"),
        ({"nbformat": 3, "worksheets": [], "cells": []}, "nbformat 3.0 is not"),
        ({"cells": []}, "nbformat None.0 is not"),
        ({"nbformat": 4, "nbformat_minor": "5", "cells": []}, "nbformat 4.5 is not"),
        (content(7), "the cell at index 0, counted from 0, is no object"),  # type: ignore[arg-type]
        (content(code(), {"source": "x"}), "the cell at index 1, counted from 0, does not say of which type it is"),
        (content({"cell_type": "code"}), "the cell at index 0, counted from 0, has a source that is no text"),
        (content(code(["a", 1])), "the cell at index 0, counted from 0, has a source that is no text"),
    ],
    ids=[
        "an array", "empty", "cells an object", "of the future", "of the past", "no version", "minor a text",
        "a cell a number", "a cell without a type", "a cell without a source", "a source of numbers",
    ],
)  # fmt: skip
def test_what_is_no_notebook_is_refused_by_name(broken: Any, complaint: str) -> None:
    with pytest.raises(NotANotebook, match=re.escape(complaint)) as caught:
        Document(broken, name="a.ipynb")
    assert str(caught.value).startswith("a.ipynb: ")
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["markdown", "raw", "of-the-future"])
@pytest.mark.parametrize("source", [{}, {"source": None}], ids=["missing", "null"])
def test_a_cell_of_text_needs_no_source(kind: str, source: dict[str, Any]) -> None:
    document = Document(content({"cell_type": kind, "metadata": {}, "id": "a", **source}, code("1")))
    assert document.cells[0] == {"cell_type": kind, "metadata": {}, "id": "a", "source": ""}


def test_what_is_missing_but_harmless_is_put_in() -> None:
    document = Document({"nbformat": 4, "cells": [{"cell_type": "code", "source": ["a\n", "b"]}]})
    assert document.content == content(code("a\nb"), minor=0)
    assert document.metadata == {}


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_fixtures_are_notebooks_and_stay_valid(path: Path) -> None:
    document = Document(json.loads(path.read_text("utf-8")))
    for index, _ in document.code_cells():
        document.clear(index)
    nbformat.validate(copy.deepcopy(document.content))


# Versions and ids ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minor", [0, 4, 5, 6])
def test_a_notebook_keeps_its_minor_version(minor: int) -> None:
    document = Document(content(code(id="a") if minor >= 5 else code(), minor=minor))
    assert document.content["nbformat_minor"] == minor
    assert document.has_ids is (minor >= 5)
    assert document.notes == []


@pytest.mark.parametrize("minor", [0, 4])
def test_cells_of_a_version_without_ids_get_none(minor: int) -> None:
    assert ids(Document(content(code(), markdown(), minor=minor))) == [None, None]


def test_ids_in_a_version_that_has_none_stay_and_are_told_of() -> None:
    document = Document(content(code(id="a"), code(id="a"), minor=4))
    assert ids(document) == ["a", "a"]
    assert document.notes == ["cells have ids, which nbformat 4.4 does not know"]


VALID = ["a", "A-b_9", "x" * 64]


def test_valid_ids_of_their_own_are_left_alone() -> None:
    document = Document(content(*(code(id=each) for each in VALID)))
    assert (ids(document), document.notes) == (VALID, [])


@pytest.mark.parametrize(
    "bad", [None, "", "x" * 65, "a b", "é", "a\n", 7, ["a"]],
    ids=["missing", "empty", "too long", "a space", "a letter beyond ASCII", "a line end", "a number", "a list"],
)  # fmt: skip
def test_an_id_that_is_none_is_replaced(bad: Any) -> None:
    document = Document(content(code(id=bad)))
    assert re.fullmatch("[0-9a-f]{8}", ids(document)[0])
    assert document.notes == ["1 cell had no valid id of their own; saving the notebook writes new ones"]


def test_of_two_cells_that_share_an_id_the_first_keeps_it() -> None:
    document = Document(content(code(id="a"), markdown(id="b"), code(id="a"), code(id="a")))
    first, second, *others = ids(document)
    assert (first, second) == ("a", "b")
    assert len({first, second, *others}) == 4
    assert document.notes[0].startswith("2 cells had")


cells_of_any_id = st.lists(
    st.builds(lambda source, id_: code(source, id=id_), st.text(max_size=3), st.sampled_from(["a", "b", "", None])),
    max_size=8,
)


@given(cells_of_any_id)
def test_repaired_ids_are_unique_and_the_same_each_time_and_need_no_second_repair(cells: list[dict[str, Any]]) -> None:
    once, again = Document(content(*copy.deepcopy(cells))), Document(content(*copy.deepcopy(cells)))
    assert ids(once) == ids(again)
    assert len(set(ids(once))) == len(cells)
    repaired = Document(copy.deepcopy(once.content))
    assert (ids(repaired), repaired.notes) == (ids(once), [])


def test_an_id_that_is_made_is_none_that_another_cell_has() -> None:
    made = ids(Document(content(code("x"))))[0]
    document = Document(content(code("x"), code("y", id=made)))
    assert ids(document)[1] == made
    assert ids(document)[0] != made


def test_ten_thousand_cells_without_ids_are_repaired() -> None:
    document = Document(content(*(code() for _ in range(10_000))))
    assert len(set(ids(document))) == 10_000


# What a server's signature does not bear -----------------------------------------------------------------------------


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "untrusted"])
def test_only_code_cells_keep_a_word_about_trust(trusted: bool) -> None:
    def said() -> dict[str, Any]:
        return {"trusted": trusted, "tags": ["t"]}

    raw = {"cell_type": "raw", "source": "", "id": "c", "metadata": said()}
    document = Document(content(code(id="a", metadata=said()), markdown(id="b", metadata=said()), raw))
    assert [cell["metadata"] for cell in document.cells] == [said(), {"tags": ["t"]}, {"tags": ["t"]}]


def test_what_a_server_puts_into_an_upgraded_notebook_is_taken_out_and_told_of() -> None:
    document = Document(content(orig_nbformat=3, orig_nbformat_minor=0, signature="sha256:x", title="kept"))
    assert document.metadata == {"title": "kept"}
    assert document.notes == ["the file is nbformat 3; saving it writes nbformat 4.5"]


def test_a_notebook_that_was_of_this_format_all_along_is_no_upgrade() -> None:
    document = Document(content(orig_nbformat=4))
    assert (document.metadata, document.notes) == ({}, [])


def test_a_cell_that_is_emptied_can_be_trusted_and_others_keep_their_flag() -> None:
    stale = {"outputs": [{"output_type": "stream"}], "execution_count": 9}
    document = Document(
        content(
            code(id="a", **stale, metadata={"execution": {"x": "y"}, "trusted": False, "nbrun": {"outcome": "failed"}}),
            code(id="b", metadata={"trusted": False}),
        )
    )
    document.clear(0)
    assert document.cells[0] == code(id="a", metadata={"trusted": True})
    assert document.cells[1]["metadata"] == {"trusted": False}


# What a run writes ---------------------------------------------------------------------------------------------------


def test_in_a_report_the_sources_of_code_are_hidden_and_nothing_else_is() -> None:
    folded = code(metadata={"jupyter": {"outputs_hidden": True}, "tags": ["a"]})
    odd = code(metadata={"jupyter": 7})
    document = Document(content(markdown(), folded, odd))
    document.hide_sources()
    assert [cell["metadata"] for cell in document.cells] == [
        {},
        {"jupyter": {"outputs_hidden": True, "source_hidden": True}, "tags": ["a"]},
        {"jupyter": {"source_hidden": True}},
    ]


def test_results_are_recorded_with_the_kernels_times() -> None:
    document = Document(content(code(id="a")))
    output = {"output_type": "stream", "name": "stdout", "text": "x"}
    document.record(0, (output,), 3, {"iopub.status.busy": "2026-01-02T03:04:05Z"})
    times = {"execution": {"iopub.status.busy": "2026-01-02T03:04:05Z"}}
    assert document.cells[0] == code(id="a", outputs=[output], execution_count=3, metadata=times)


def test_without_times_nothing_is_said_of_them() -> None:
    document = Document(content(code(id="a")))
    document.record(0, [], None, {})
    assert document.cells[0] == code(id="a")


@pytest.mark.parametrize(
    "outcome", [CellOutcome.FAILED, CellOutcome.TIMED_OUT, CellOutcome.KERNEL_DIED, CellOutcome.NOT_RUN]
)
def test_a_cell_that_did_not_pass_is_marked(outcome: CellOutcome) -> None:
    document = Document(content(code(id="a", metadata={"nbrun": {"timeout": 5}})))
    document.mark(0, outcome)
    assert document.cells[0]["metadata"]["nbrun"] == {"timeout": 5, "outcome": outcome.value}


def test_a_cell_that_lost_output_is_marked_though_it_passed_and_only_until_the_next_run() -> None:
    document = Document(content(code(id="a")))
    document.mark(0, CellOutcome.PASSED, Incomplete((Cause.RATE_LIMIT,), 3, exact=True))
    lost = {"causes": ["rate-limit"], "lost": 3, "exact": True}
    assert document.cells[0]["metadata"]["nbrun"] == {"incomplete": lost}
    document.mark(0, CellOutcome.PASSED)
    assert "nbrun" not in document.cells[0]["metadata"]


@pytest.mark.parametrize("outcome", [None, CellOutcome.PASSED, CellOutcome.SKIPPED])
def test_a_cell_that_passed_bears_no_mark_and_loses_an_old_one(outcome: CellOutcome | None) -> None:
    document = Document(
        content(
            code(id="a"),
            code(id="b", metadata={"nbrun": {"outcome": "failed"}}),
            code(id="c", metadata={"nbrun": {"outcome": "failed", "timeout": 5}}),
        )
    )
    for index in range(3):
        document.mark(index, outcome)
    assert [cell["metadata"] for cell in document.cells] == [{}, {}, {"nbrun": {"timeout": 5}}]


def test_the_record_of_the_run_replaces_the_last_one_and_leaves_the_settings() -> None:
    document = Document(content(nbrun={"timeout": "5m", "run": {"old": 1}}, title="kept"))
    document.mark_run({"outcome": "passed"})
    assert document.metadata == {"nbrun": {"timeout": "5m", "run": {"outcome": "passed"}}, "title": "kept"}


def test_settings_that_are_no_object_give_way_to_the_record() -> None:
    document = Document(content(nbrun="nonsense"))
    document.mark_run({"outcome": "passed"})
    assert document.metadata["nbrun"] == {"run": {"outcome": "passed"}}


def test_the_kernel_that_ran_the_notebook_is_named_in_it() -> None:
    document = Document(content(kernelspec={"name": "old", "extra": 1}, language_info={"name": "old"}))
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    document.set_kernel(spec, {"name": "python"})
    assert document.metadata == {"kernelspec": spec, "language_info": {"name": "python"}}
    document.set_kernel(spec, {})
    assert document.metadata["language_info"] == {"name": "python"}


def test_code_cells_are_counted_among_all_cells() -> None:
    document = Document(content(markdown(id="a"), code(id="b"), markdown(id="c"), code(id="d")))
    assert [(index, cell["id"]) for index, cell in document.code_cells()] == [(1, "b"), (3, "d")]


@given(json_objects, json_objects)
def test_metadata_that_nobody_knows_goes_back_as_it_came(of_notebook: dict[str, Any], of_cell: dict[str, Any]) -> None:
    ours = {"nbrun", "trusted", "execution", "orig_nbformat", "orig_nbformat_minor", "signature"}
    for metadata in (of_notebook, of_cell):
        for key in ours & metadata.keys():
            del metadata[key]
    document = Document(content(code(id="a", metadata=copy.deepcopy(of_cell)), **copy.deepcopy(of_notebook)))
    document.clear(0)
    document.record(0, [], 1, {})
    assert document.metadata == of_notebook
    assert document.cells[0]["metadata"] == {**of_cell, "trusted": True}


# Widgets ---------------------------------------------------------------------------------------------------------


def test_the_state_of_widgets_is_put_in_and_taken_out_again() -> None:
    document = Document(content(code(id="a")))
    document.set_widgets({STATE_MIME: {"state": {"m": {"state": {}}}}})
    assert list(document.metadata["widgets"][STATE_MIME]["state"]) == ["m"]
    document.set_widgets(None)
    assert "widgets" not in document.metadata


def test_a_cell_that_is_not_finished_says_so_until_it_has_its_outcome() -> None:
    document = Document(content(code(metadata={"nbrun": {"timeout": 5}})))
    document.mark_running(0)
    assert document.cells[0]["metadata"]["nbrun"] == {"timeout": 5, "outcome": "running"}
    document.mark(0, CellOutcome.PASSED)
    assert document.cells[0]["metadata"]["nbrun"] == {"timeout": 5}


def test_a_cell_whose_outputs_were_cut_says_so_until_it_runs_again() -> None:
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "c",
        "source": "",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    document = Document({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    document.mark(0, CellOutcome.PASSED, truncated=Truncated(10, 1, 8000))
    assert document.cells[0]["metadata"]["nbrun"] == {"truncated": {"characters": 10, "outputs": 1, "limit": 8000}}
    document.clear(0)
    assert "nbrun" not in document.cells[0]["metadata"]


def test_the_size_of_a_notebook_is_that_of_its_sources_texts_and_pictures() -> None:
    shown = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "x" * 100, "application/json": {}}}
    printed = {"output_type": "stream", "name": "stdout", "text": "y" * 20}
    document = Document(content(markdown("z" * 3), code("1", outputs=[shown, printed])))
    assert document.size() == 3 + 1 + 120
