"""The preview of a run, as in ``nbrun plan --json``."""

import math

import pytest

from nbrun.core.notebook.document import Document
from nbrun.core.parameters.literals.registry import writer_for
from nbrun.core.planning.job import Job, Limits
from nbrun.core.planning.preview import make_preview
from nbrun.errors import UsageError
from tests.support.notebooks import code, notebook


def test_a_preview_tells_of_parameters_cells_and_limits() -> None:
    document = Document(
        notebook(code("n = 1  # how many", tags=["parameters"]), code("2", tags=["skip-execution"]), "")
    )
    job = Job(
        "nb.ipynb", parameters={"n": 2, "new": math.nan}, allow_new=True, secrets={"KEY": "hunter2222"},
        limits=Limits(run=60.0, cell=math.inf, silence=5.0),
    )  # fmt: skip
    told = make_preview(document, job, "python3", "python", writer_for).as_dict()
    assert told["parameters"] == [
        {
            "name": "n",
            "type": "int",
            "default": "1",
            "comment": "how many",
            "declared": True,
            "given": True,
            "value": 2,
        },
        {"name": "new", "type": None, "default": None, "comment": "", "declared": False, "given": True, "value": "NaN"},
    ]
    assert (told["notebook"], told["kernel"], told["language"]) == ("nb.ipynb", "python3", "python")
    assert (told["secrets"], told["run_timeout"], told["warnings"]) == (["KEY"], 60.0, [])
    assert [(cell["index"], cell["action"], cell["injected"]) for cell in told["cells"]] == [
        (0, "run", False), (1, "run", True), (2, "skip", False), (3, "empty", False),
    ]  # fmt: skip
    assert (told["cells"][0]["timeout"], told["cells"][0]["idle_timeout"]) == (None, 5.0)
    assert "hunter2222" not in str(told)


def test_a_preview_without_parameters_injects_nothing() -> None:
    told = make_preview(Document(notebook("1")), Job("nb.ipynb"), None, "", writer_for).as_dict()
    assert (told["parameters"], len(told["cells"]), told["kernel"]) == ([], 1, None)


def test_a_preview_refuses_what_a_run_would_refuse() -> None:
    with pytest.raises(UsageError, match="no name of a variable"):
        make_preview(Document(notebook("1")), Job("nb", secrets={"a b": "x"}), None, "python", writer_for)
    twice = Job("nb", parameters={"x": 1}, secrets={"x": "y"})
    with pytest.raises(UsageError, match="as a parameter and as a secret"):
        make_preview(Document(notebook("1")), twice, None, "python", writer_for)
