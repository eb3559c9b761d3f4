"""A notebook counts as executed only if every output is there and correct."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.workloads import IMAGE_BYTES, IMAGES, WORKLOADS, Workload, cells, printing


def stream(text: Any, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def executed(workload: Workload, *outputs: dict[str, Any]) -> dict[str, Any]:
    """Return the workload's notebook with these outputs in its first cell."""
    notebook = workload.notebook()
    notebook["cells"][0]["outputs"] = list(outputs)
    return notebook


@pytest.mark.parametrize(
    ("outputs", "missing"),
    [
        ([stream("0\n1\n2\n")], ""),
        ([stream(["0\n", "1\n", "2\n"])], ""),
        ([stream("0\n"), stream("1\n2\n")], ""),
        ([stream("0\n2\n")], "2 of 3 lines"),
        ([stream("0\n1\n2\n"), stream("a warning\n", "stderr")], ""),
        ([stream("1\n0\n2\n")], "lines out of order"),
        ([], "0 of 3 lines"),
    ],
    ids=["joined", "as a list", "in parts", "one lost", "beside stderr", "swapped", "none"],
)
def test_lines_are_counted(outputs: list[dict[str, Any]], missing: str) -> None:
    workload = printing(3, flush=True)
    assert workload.check(executed(workload, *outputs)) == missing


def test_results_are_compared_one_by_one() -> None:
    workload = cells(2)
    notebook = workload.notebook()
    for cell, text in zip(notebook["cells"], ("1", "2"), strict=True):
        cell["outputs"] = [{"output_type": "execute_result", "data": {"text/plain": [text]}}]
    assert workload.check(notebook) == ""
    notebook["cells"][1]["outputs"] = []
    assert workload.check(notebook) == "1 of 2 outputs right"


def test_images_are_told_apart_and_measured() -> None:
    workload = WORKLOADS["W5"]
    size = IMAGE_BYTES * 4 // 3
    images = [{"output_type": "display_data", "data": {"image/png": f"{n:02}".rjust(size, "A")}} for n in range(IMAGES)]
    assert workload.check(executed(workload, *images)) == ""
    images[3]["data"] = {"image/png": "cut short"}
    assert workload.check(executed(workload, *images)) == f"{IMAGES - 1} of {IMAGES} images"


def test_a_notebook_that_is_not_there_or_not_readable_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "0.ipynb"
    assert WORKLOADS["W1"].missing(path) == "no 0.ipynb"
    path.write_text("{")
    assert "is no JSON" in WORKLOADS["W1"].missing(path)
    path.write_text(json.dumps(WORKLOADS["W1"].notebook()))
    assert WORKLOADS["W1"].missing(path) == "0 of 1 outputs right"
