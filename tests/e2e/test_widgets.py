"""Widgets are saved with the notebook, so that they show without a kernel."""

import base64
from pathlib import Path
from typing import Any

import nbformat

import nbrun
from nbrun.core.widgets import STATE_MIME, VIEW_MIME
from tests.support.notebooks import notebook, outputs_of, read_notebook, write_notebook

SLIDER = "import ipywidgets as w\nslider = w.IntSlider(value=7, max=9)\nslider.value = 8\nslider"
INTERACT = "@w.interact(x=(0, 10))\ndef double(x=3):\n    print('twice', 2 * x)"
CAPTURED = "out = w.Output()\nwith out:\n    print('captured')\n    1 / 0\nprint('not captured')\nout"
KNOWN = "print([output['output_type'] for output in out.outputs])"
PICTURE = "w.Image(value=b'\\x89PNG binary', format='png')"
BAR = "from tqdm.notebook import tqdm\nfor _ in tqdm(range(3)): pass"


def saved_models(document: dict[str, Any]) -> dict[str, Any]:
    models: dict[str, Any] = document["metadata"]["widgets"][STATE_MIME]["state"]
    return models


def shown(outputs: list[dict[str, Any]], models: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the models that a cell shows."""
    views = [output["data"][VIEW_MIME]["model_id"] for output in outputs if VIEW_MIME in output.get("data", {})]
    return [models[model_id] for model_id in views]


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


def test_a_run_without_widgets_takes_away_those_of_an_earlier_run(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "widgets.ipynb", notebook(SLIDER))
    nbrun.run(path)
    document = read_notebook(path)
    document["cells"][0]["source"] = "1"
    nbrun.run(write_notebook(path, document))
    assert "widgets" not in read_notebook(path)["metadata"]
