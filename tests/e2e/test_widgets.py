"""Widgets are saved with the notebook and displayed without a kernel."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import nbformat

import nbrun
from nbrun.core.outputs.widgets import STATE_MIME, VIEW_MIME
from tests.support.notebooks import notebook, outputs_of, read_notebook, write_notebook

SLIDER = "import ipywidgets as w\nslider = w.IntSlider(value=7, max=9)\nslider.value = 8\nslider"
INTERACT = "@w.interact(x=(0, 10))\ndef double(x=3):\n    print('twice', 2 * x)"
CAPTURED = "out = w.Output()\nwith out:\n    print('captured')\n    1 / 0\nprint('not captured')\nout"
KNOWN = "print([output['output_type'] for output in out.outputs])"
NESTED = (
    "outer, inner = w.Output(), w.Output()\n"
    "with outer:\n    print('outer before')\n    with inner:\n        print('inner')\n        [][1]\n"
    "    print('outer after')\n    display(inner)\nprint('cell')\nouter"
)
PICTURE = "w.Image(value=b'\\x89PNG binary', format='png')"
BAR = "from tqdm.notebook import tqdm\nfor _ in tqdm(range(3)): pass"


def saved_models(document: dict[str, Any]) -> dict[str, Any]:
    models: dict[str, Any] = document["metadata"]["widgets"][STATE_MIME]["state"]
    return models


def shown(outputs: list[dict[str, Any]], models: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the models that a cell shows."""
    views = [output["data"][VIEW_MIME]["model_id"] for output in outputs if VIEW_MIME in output.get("data", {})]
    return [models[model_id] for model_id in views]


def check_state(widgets: dict[str, Any]) -> None:
    """Check a notebook's ``metadata.widgets`` against the published form, version 2, and that nothing is dangling."""
    [(mime, saved)] = widgets.items()
    assert mime == STATE_MIME
    assert (saved["version_major"], saved["version_minor"], set(saved)) == (
        2, 0, {"version_major", "version_minor", "state"}
    )  # fmt: skip
    for model_id, model in saved["state"].items():
        assert re.fullmatch(r"[0-9a-f]{32}", model_id)
        assert set(model) - {"buffers"} == {"model_name", "model_module", "model_module_version", "state"}
        assert all(isinstance(model[key], str) and model[key] for key in set(model) - {"buffers", "state"})
        assert model["state"]["_model_name"] == model["model_name"]
        for buffer in model.get("buffers", ()):
            assert (set(buffer), buffer["encoding"]) == ({"path", "encoding", "data"}, "base64")
            base64.b64decode(buffer["data"], validate=True)
            assert buffer["path"][0] not in model["state"] or len(buffer["path"]) > 1
        for output in model["state"].get("outputs", ()):
            nbformat.validate(output, ref="output", version=4, version_minor=5)
        for reference in re.findall(r'"IPY_MODEL_([^"]*)"', json.dumps(model["state"])):
            assert reference in saved["state"]


def test_widgets_stand_in_the_notebook_as_they_were_at_the_end(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "widgets.ipynb", notebook(SLIDER, INTERACT, CAPTURED, KNOWN, PICTURE, BAR))
    result = nbrun.run(path)
    assert result.outcome is nbrun.Outcome.PASSED, result
    document = read_notebook(path)
    models = saved_models(document)
    slider, interact, captured, known, picture, bar = outputs_of(document)

    [model] = shown(slider, models)
    assert (model["model_name"], model["state"]["value"]) == ("IntSliderModel", 8)

    [box] = shown(interact, models)
    inner = [models[child.removeprefix("IPY_MODEL_")] for child in box["state"]["children"]]
    [output] = [child for child in inner if child["model_name"] == "OutputModel"]
    assert output["state"]["outputs"] == [{"output_type": "stream", "name": "stdout", "text": "twice 6\n"}]

    assert captured[0]["text"] == "not captured\n"
    [model] = shown(captured, models)
    assert [each["output_type"] for each in model["state"]["outputs"]] == ["stream", "error"]
    assert model["state"]["outputs"][1]["ename"] == "ZeroDivisionError"
    assert "stream" in known[0]["text"]
    assert "error" in known[0]["text"]

    [model] = shown(picture, models)
    [buffer] = model["buffers"]
    assert (buffer["path"], base64.b64decode(buffer["data"])) == (["value"], b"\x89PNG binary")

    [box] = shown(bar, models)
    progress = models[box["state"]["children"][1].removeprefix("IPY_MODEL_")]
    assert (progress["model_name"], progress["state"]["value"]) == ("FloatProgressModel", 3.0)

    nbformat.validate(nbformat.read(path, as_version=4))
    check_state(document["metadata"]["widgets"])


def test_output_widgets_within_one_another_hold_what_was_put_out_in_each(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "nested.ipynb", notebook("import ipywidgets as w", NESTED))
    assert nbrun.run(path).outcome is nbrun.Outcome.PASSED
    document = read_notebook(path)
    models = saved_models(document)
    cell = outputs_of(document)[1]
    assert cell[0]["text"] == "cell\n"
    [outer] = shown(cell, models)
    texts = "".join(output.get("text", "") for output in outer["state"]["outputs"])
    assert texts == "outer before\nouter after\n"
    [inner] = shown(outer["state"]["outputs"], models)
    assert [output["output_type"] for output in inner["state"]["outputs"]] == ["stream", "error"]
    assert inner["state"]["outputs"][0]["text"] == "inner\n"
    check_state(document["metadata"]["widgets"])


def test_a_run_without_widgets_takes_away_those_of_an_earlier_run(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "widgets.ipynb", notebook(SLIDER))
    nbrun.run(path)
    document = read_notebook(path)
    document["cells"][0]["source"] = "1"
    nbrun.run(write_notebook(path, document))
    assert "widgets" not in read_notebook(path)["metadata"]
