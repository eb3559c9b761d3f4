"""Which parts of a notebook a page shows."""

from typing import Any

import pytest

from nbrun.reporters.html.visibility import VIEW, Code, Failures, Rules
from tests.support.notebooks import code, markdown, notebook

OUT = {"output_type": "stream", "name": "stdout", "text": "out"}
ERR = {"output_type": "stream", "name": "stderr", "text": "UserWarning: x = 1"}
ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["----> x = 1"]}

CELLS: list[tuple[Code, list[str], dict[str, Any], tuple[str, str, str] | None]] = [
    (Code.SHOW, [], {}, ("show", "show", "show")),
    (Code.SHOW, ["hide-input"], {}, ("show", "fold", "show")),
    (Code.SHOW, ["remove-input"], {}, ("show", "remove", "show")),
    (Code.SHOW, ["hide-output"], {}, ("show", "show", "fold")),
    (Code.SHOW, ["remove-output"], {}, ("show", "show", "remove")),
    (Code.SHOW, ["hide-cell"], {}, ("fold", "show", "show")),
    (Code.SHOW, ["remove-cell"], {}, None),
    (Code.SHOW, ["remove-input", "remove-output"], {}, None),
    (Code.SHOW, ["injected-parameters"], {}, ("show", "show", "show")),
    (Code.SHOW, [], {"jupyter": {"source_hidden": True}}, ("show", "fold", "show")),
    (Code.SHOW, [], {"jupyter": {"outputs_hidden": True}}, ("show", "show", "fold")),
    (Code.SHOW, [], {"collapsed": True}, ("show", "show", "fold")),
    (Code.SHOW, [], {"jupyter": "odd", "tags": "odd"}, ("show", "show", "show")),
    (Code.FOLD, [], {}, ("show", "fold", "show")),
    (Code.FOLD, ["remove-input"], {}, ("show", "remove", "show")),
    (Code.HIDE, [], {}, ("show", "remove", "show")),
    (Code.HIDE, ["hide-input"], {}, ("show", "remove", "show")),
    (Code.HIDE, ["hide-output"], {}, ("show", "remove", "fold")),
    (Code.HIDE, ["remove-output"], {}, None),
    (Code.HIDE, ["hide-cell"], {}, ("fold", "remove", "show")),
    (Code.HIDE, ["injected-parameters"], {}, None),
]


def shown(cell: dict[str, Any], rules: Rules) -> dict[str, Any] | None:
    document = notebook(cell)
    rules.apply(document)
    return document["cells"][0] if document["cells"] else None


@pytest.mark.parametrize(("mode", "tags", "metadata", "parts"), CELLS)
def test_tags_and_metadata_fold_and_remove(
    mode: Code, tags: list[str], metadata: dict[str, Any], parts: tuple[str, str, str] | None
) -> None:
    cell = code("x = 1", tags=tags, outputs=[OUT])
    cell["metadata"] |= metadata
    found = shown(cell, Rules(mode))
    if found is None:
        assert parts is None
        return
    view = found["metadata"][VIEW]
    assert (view["cell"], view["source"], view["outputs"]) == parts
    assert (found["source"] == "") == (view["source"] == "remove")
    assert (found["outputs"] == []) == (view["outputs"] == "remove")
    assert view["prompts"] == (mode is not Code.HIDE)


@pytest.mark.parametrize(("tag", "part"), [("", "show"), ("hide-cell", "fold"), ("hide-input", "show")])
def test_markdown_is_folded_as_a_cell_only(tag: str, part: str) -> None:
    cell = markdown("text")
    cell["metadata"] = {"tags": [tag], "jupyter": {"source_hidden": True}}
    found = shown(cell, Rules(Code.HIDE))
    assert found is not None
    assert found["metadata"][VIEW]["cell"] == part
    assert found["source"] == "text"
    cell["metadata"] = {"tags": ["remove-cell"]}
    assert shown(cell, Rules()) is None


def test_a_failed_cell_is_shown_whatever_hides_it() -> None:
    cell = code("x = 1", tags=["remove-cell", "remove-input"], outputs=[ERR, ERROR], count=3)
    found = shown(cell, Rules(Code.HIDE, failing=["cell-1"]))
    assert found is not None
    assert found["source"] == "x = 1"
    assert found["outputs"] == [ERR, ERROR]
    assert found["execution_count"] is None


@pytest.mark.parametrize("mode", Code)
def test_a_failed_cell_of_which_nothing_is_told_says_only_that(mode: Code) -> None:
    found = shown(code("x = 1", outputs=[OUT, ERR, ERROR]), Rules(mode, Failures.HIDE, ["cell-1"]))
    assert found is not None
    assert found["source"] == ("" if mode is Code.HIDE else "x = 1")
    assert [output.get("traceback", output.get("text")) for output in found["outputs"]] == [
        "out",
        ["This cell failed. The page does not show why."],
    ]


def test_without_code_an_allowed_error_has_no_traceback_and_standard_error_is_left_out() -> None:
    found = shown(code("x = 1", outputs=[OUT, ERR, ERROR]), Rules(Code.HIDE))
    assert found is not None
    assert [output.get("traceback", output.get("text")) for output in found["outputs"]] == ["out", ["ValueError: no"]]


@pytest.mark.parametrize(("mode", "kept"), [(Code.SHOW, [OUT, ERR, ERROR]), (Code.HIDE, [OUT])])
def test_without_code_an_output_widget_holds_no_traceback_either(mode: Code, kept: list[dict[str, Any]]) -> None:
    models: dict[str, Any] = {"a": {"state": {"outputs": [OUT, ERR, ERROR, "odd"]}}, "b": {"state": {}}, "c": "odd"}
    Rules(mode).apply_to_widgets(models)
    outputs = models["a"]["state"]["outputs"]
    assert outputs[: len(kept)] == kept
    assert ("----> x = 1" in str(outputs)) == (mode is Code.SHOW)


def test_a_failed_cell_without_id_is_known_by_its_index() -> None:
    cell = code("x = 1")
    document = {"cells": [code("y"), cell], "metadata": {}}
    Rules(Code.HIDE, failing=[1]).apply(document)
    assert [each["source"] for each in document["cells"]] == ["x = 1"]
