"""A notebook that was edited during its run keeps the edits and gets the matching results."""

import copy
from collections.abc import Container
from typing import Any

import pytest

from nbrun.core.notebook.document import Document
from nbrun.core.notebook.merge import Merged, fingerprint, fingerprints, merge
from nbrun.core.outputs.widgets import STATE_MIME, VIEW_MIME

Notebook = dict[str, Any]
Cell = dict[str, Any]


def code(source: str, output: str | None = None, *, named: str = "", **metadata: Any) -> Cell:
    outputs = [{"output_type": "stream", "name": "stdout", "text": output}] if output is not None else []
    count = 1 if output is not None else None
    cell = {"cell_type": "code", "source": source, "outputs": outputs, "execution_count": count, "metadata": metadata}
    return cell | ({"id": named} if named else {})


def text(source: str, *, named: str = "") -> Cell:
    return {"cell_type": "markdown", "source": source, "metadata": {}} | ({"id": named} if named else {})


def notebook(*cells: Cell, minor: int = 5, **metadata: Any) -> Notebook:
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": minor}


def merged(theirs: Notebook, ours: Notebook, known: Container[int] = ()) -> Merged:
    """Merge copies, so that the cells of a test can be used on both sides."""
    return merge(Document(copy.deepcopy(theirs)), Document(copy.deepcopy(ours)).content, known)


def shown(result: Merged) -> list[str]:
    """Return what each code cell of the result has put out; "-" for nothing."""
    cells = [cell for cell in result.content["cells"] if cell["cell_type"] == "code"]
    return ["".join(output["text"] for output in cell["outputs"]) or "-" for cell in cells]


def test_an_edited_text_stays_and_the_results_come_in() -> None:
    theirs = notebook(text("New words", named="t"), code("a", named="a"), code("b", named="b"))
    ours = notebook(text("Old words", named="t"), code("a", "1", named="a"), code("b", "2", named="b"))
    result = merged(theirs, ours)
    assert shown(result) == ["1", "2"]
    assert result.content["cells"][0]["source"] == "New words"
    assert (result.placed, result.unplaced) == (2, [])


def test_cells_that_were_moved_and_put_in_between_are_found_by_their_ids() -> None:
    theirs = notebook(code("b", named="b"), code("new", named="n"), code("a", named="a"))
    ours = notebook(code("a", "1", named="a"), code("b", "2", named="b"))
    assert shown(merged(theirs, ours)) == ["2", "-", "1"]


def test_of_a_cell_whose_source_they_changed_their_state_stays_and_ours_is_told_of() -> None:
    theirs = notebook(code("a", named="a"), code("b + 1", "old", named="b"), code("c", named="c"))
    ours = notebook(code("a", "1", named="a"), code("b", "2", named="b"), code("c", "3", named="c"))
    result = merged(theirs, ours)
    assert shown(result) == ["1", "old", "3"]
    assert (result.placed, result.unplaced) == (2, [1])


def test_a_cell_that_they_removed_is_told_of_if_it_had_results() -> None:
    theirs = notebook(code("a", named="a"))
    ours = notebook(code("a", "1", named="a"), code("b", "2", named="b"), code("c", named="c"))
    assert merged(theirs, ours).unplaced == [1]


def test_a_cell_that_became_text_has_no_place_for_results() -> None:
    result = merged(notebook(text("a", named="a")), notebook(code("a", "1", named="a")))
    assert (result.placed, result.unplaced) == (0, [0])


def test_a_cell_under_a_new_id_is_found_by_its_source() -> None:
    assert shown(merged(notebook(code("a", named="x")), notebook(code("a", "1", named="a")))) == ["1"]


def test_sources_that_changed_places_under_their_ids_are_nobodys_guess() -> None:
    theirs = notebook(code("b", named="a"), code("a", named="b"))
    ours = notebook(code("a", "1", named="a"), code("b", "2", named="b"))
    assert merged(theirs, ours).unplaced == [0, 1]


def test_without_ids_cells_are_found_by_source_and_order() -> None:
    theirs = notebook(text("Words"), code("b"), code("same"), code("a"), code("same"), minor=4)
    ours = notebook(code("a", "1"), code("same", "2"), code("b", "3"), code("same", "4"), minor=4)
    assert shown(merged(theirs, ours)) == ["3", "2", "1", "4"]


def test_without_ids_one_of_several_equal_cells_less_leaves_them_all_in_doubt() -> None:
    theirs = notebook(code("a"), code("same"), minor=4)
    ours = notebook(code("a", "1"), code("same", "2"), code("same", "3"), minor=4)
    result = merged(theirs, ours)
    assert (shown(result), result.unplaced) == (["1", "-"], [1, 2])


def test_results_of_an_earlier_run_give_way_and_results_of_their_own_do_not() -> None:
    before = notebook(code("a", "old", named="a"), code("b", "old", named="b"))
    theirs = notebook(code("a", "old", named="a"), code("b", "theirs", named="b"))
    ours = notebook(code("a", "1", named="a"), code("b", "2", named="b"))
    result = merged(theirs, ours, fingerprints(before))
    assert (shown(result), result.unplaced) == (["1", "theirs"], [1])


def test_results_that_are_the_same_are_nobodys_loss() -> None:
    result = merged(notebook(code("a", "1", named="a")), notebook(code("a", "1", named="a")))
    assert (result.placed, result.unplaced) == (0, [])


def test_a_cell_that_was_not_run_is_emptied_as_in_any_other_save() -> None:
    before = notebook(code("a", "old", named="a"))
    ours = notebook(code("a", named="a", nbrun={"outcome": "not-run"}))
    result = merged(before, ours, fingerprints(before))
    assert (shown(result), result.placed, result.unplaced) == (["-"], 0, [])
    assert result.content["cells"][0]["metadata"]["nbrun"] == {"outcome": "not-run"}


@pytest.mark.parametrize("same", [True, False])
def test_of_a_skipped_cell_the_outputs_are_theirs_and_trusted_only_if_they_are_the_ones_that_were(same: bool) -> None:
    skipped = code("a", "old", named="a", tags=["skip-execution"], trusted=True)
    theirs = code("a", "old" if same else "theirs", named="a", tags=["skip-execution"])
    result = merged(notebook(theirs), notebook(skipped))
    assert shown(result) == ["old" if same else "theirs"]
    assert ("trusted" in result.content["cells"][0]["metadata"]) is same
    assert (result.placed, result.unplaced) == (0, [])


def test_of_a_skipped_cell_what_they_took_away_does_not_come_back() -> None:
    skipped = code("a", "old", named="a", tags=["skip-execution"], trusted=True)
    result = merged(notebook(code("a", named="a", tags=["skip-execution"])), notebook(skipped))
    assert shown(result) == ["-"]
    assert "trusted" not in result.content["cells"][0]["metadata"]


def test_times_and_marks_and_trust_are_ours_and_other_metadata_is_theirs() -> None:
    their_metadata = {"tags": ["new"], "execution": {"old": "x"}, "nbrun": {"outcome": "failed", "timeout": 5}}
    mine = code("a", "1", named="a", trusted=True, nbrun={"incomplete": {"causes": []}, "timeout": 9})
    theirs = code("a", named="a") | {"metadata": their_metadata}
    result = merged(notebook(theirs), notebook(mine))
    assert result.content["cells"][0]["metadata"] == {
        "tags": ["new"],
        "trusted": True,
        "nbrun": {"incomplete": {"causes": []}, "timeout": 5},
    }


def test_the_notebooks_metadata_are_theirs_but_for_the_mark_of_the_run() -> None:
    theirs = notebook(code("a", named="a"), title="T", kernelspec={"name": "theirs"}, nbrun={"timeout": 5, "run": {}})
    ours = notebook(
        code("a", "1", named="a"),
        kernelspec={"name": "ours"},
        language_info={"name": "python"},
        nbrun={"timeout": 9, "run": {"outcome": "passed"}},
    )
    assert merged(theirs, ours).content["metadata"] == {
        "title": "T",
        "kernelspec": {"name": "theirs"},
        "language_info": {"name": "python"},
        "nbrun": {"timeout": 5, "run": {"outcome": "passed"}},
    }


def widgets(*ids: str) -> dict[str, Any]:
    records: dict[str, Any] = {each: {"state": {}} for each in ids}
    return {STATE_MIME: {"version_major": 2, "version_minor": 0, "state": records}}


def view(model_id: str) -> dict[str, Any]:
    return {"output_type": "display_data", "data": {VIEW_MIME: {"model_id": model_id}}, "metadata": {}}


def test_widgets_come_with_the_outputs_that_show_them() -> None:
    a, b = code("a", "", named="a"), code("b", "", named="b")
    theirs = notebook(a, b | {"outputs": [view("kept")]}, widgets=widgets("kept", "gone"))
    ours = notebook(a | {"outputs": [view("new")]}, widgets=widgets("new"))
    found = merged(theirs, ours).content["metadata"]["widgets"][STATE_MIME]["state"]
    assert sorted(found) == ["kept", "new"]


INJECTED: dict[str, Any] = {"tags": ["injected-parameters"]}


def test_a_cell_that_the_run_wrote_itself_comes_after_the_one_that_it_stood_after() -> None:
    theirs = notebook(text("New", named="n"), code("x = 1", named="p"), code("x", named="x"))
    ours = notebook(code("x = 1", "1", named="p"), code("x = 2", "2", named="i", **INJECTED), code("x", "3", named="x"))
    result = merged(theirs, ours)
    assert [cell["source"] for cell in result.content["cells"]] == ["New", "x = 1", "x = 2", "x"]
    assert (shown(result), result.unplaced) == (["1", "2", "3"], [])


def test_a_cell_that_the_run_wrote_itself_at_the_top_comes_to_the_top() -> None:
    ours = notebook(code("x = 2", "2", named="i", **INJECTED), code("x", "3", named="x"))
    assert shown(merged(notebook(code("x", named="x")), ours)) == ["2", "3"]


def test_a_cell_that_the_run_wrote_itself_takes_the_place_of_that_of_an_earlier_run() -> None:
    theirs = notebook(code("x = 1", "old", named="i", **INJECTED), code("x", named="x"))
    ours = notebook(code("x = 2", "2", named="i", **INJECTED), code("x", "3", named="x"))
    assert shown(merged(theirs, ours)) == ["2", "3"]


def test_results_do_not_come_under_parameters_of_which_they_are_not() -> None:
    theirs = notebook(
        code("x = 1", "theirs", named="i", **INJECTED), code("x", "theirs", named="x"), code("y", named="y")
    )
    ours = notebook(code("x = 2", "2", named="i", **INJECTED), code("x", "3", named="x"), code("y", "4", named="y"))
    result = merged(theirs, ours)
    assert shown(result) == ["theirs", "theirs", "-"]
    assert (result.placed, result.unplaced) == (0, [0, 1])


def test_a_fingerprint_is_the_same_in_lines_and_in_one_piece_and_another_for_other_results() -> None:
    whole = code("a\nb", named="a") | {
        "outputs": [
            {"output_type": "stream", "name": "stdout", "text": "1\n2\n"},
            {"output_type": "display_data", "metadata": {}, "data": {"text/plain": "a\nb", "application/json": ["x"]}},
        ]
    }
    lines = copy.deepcopy(whole)
    lines["source"] = ["a\n", "b"]
    lines["outputs"][0]["text"] = ["1\n", "2\n"]
    lines["outputs"][1]["data"]["text/plain"] = ["a\n", "b"]
    assert fingerprint(lines) == fingerprint(whole)
    lines["outputs"][1]["data"]["application/json"] = ["y"]
    assert fingerprint(lines) != fingerprint(whole)


@pytest.mark.parametrize("content", [{}, {"cells": 1}, {"cells": ["x"]}, {"cells": [{"cell_type": "code"}]}])
def test_what_is_no_notebook_has_no_fingerprints(content: Any) -> None:
    assert fingerprints(content) == frozenset()
