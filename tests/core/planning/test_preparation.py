"""The notebook and its plan after the preparation for a run."""

from typing import Any

import pytest

from nbrun.core.notebook.document import Document
from nbrun.core.parameters.literals.base import LiteralWriter
from nbrun.core.parameters.literals.registry import writer_for
from nbrun.core.planning.job import Job
from nbrun.core.planning.preparation import Prepared, prepare
from nbrun.errors import NotANotebook, UsageError
from tests.support.notebooks import code, notebook


def prepared(document: Document, language: str = "python", **options: Any) -> Prepared:
    return prepare(document, Job("nb.ipynb", **options), "a-kernel", language, writer_for)


def sources(document: Document) -> list[str]:
    return [cell["source"] for cell in document.cells]


def before(found: Prepared) -> list[list[str]]:
    return [list(cell.before) for cell in found.plan.cells]


def test_parameters_become_a_cell_that_is_planned_too() -> None:
    document = Document(notebook(code("n = 1", tags=["parameters"]), "n"))
    found = prepared(document, parameters={"n": 2})
    assert sources(document) == ["n = 1", "# Parameters\nn = 2", "n"]
    assert (found.parameters, found.warnings) == ({"n": 2}, [])
    assert [cell.source for cell in found.plan.cells] == sources(document)


def test_secrets_go_into_the_plan_and_not_into_the_notebook() -> None:
    document = Document(notebook(code("key = ''", tags=["parameters"]), "key"))
    found = prepared(document, secrets={"key": "hunter2222", "other": "swordfish"})
    assert sources(document) == ["key = ''", "key"]
    assert found.parameters == {}
    assert before(found) == [['other = "swordfish"'], ['key = "hunter2222"\nother = "swordfish"']]


def test_a_secret_that_is_too_short_to_be_masked_is_warned_of_behind_what_parameters_gave_rise_to() -> None:
    found = prepared(Document(notebook("1")), parameters={"n": 1}, secrets={"a": "x", "b": "long enough"})
    assert len(found.warnings) == 2
    assert found.warnings[-1] == "the secret a is too short to be masked in the outputs"


def test_a_name_is_not_a_parameter_and_a_secret() -> None:
    document = Document(notebook("1"))
    with pytest.raises(UsageError, match=r"nb\.ipynb: x is given as a parameter and as a secret"):
        prepared(document, parameters={"x": 1}, secrets={"x": "hunter2222"})
    assert sources(document) == ["1"]


def test_a_writer_is_looked_for_only_where_there_is_something_to_write() -> None:
    def nothing_known(kernel: str, language: str) -> LiteralWriter:
        raise UsageError(f"no writer for {kernel}, {language}")

    assert prepare(Document(notebook("1")), Job("nb"), "k", "cobol", nothing_known).plan.cells
    for job in (Job("nb", parameters={"x": 1}), Job("nb", secrets={"x": "hunter2222"})):
        with pytest.raises(UsageError, match="no writer for k, cobol"):
            prepare(Document(notebook("1")), job, "k", "cobol", nothing_known)


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(NotANotebook, match="timeout"):
        prepared(Document(notebook("1", nbrun={"timeout": "soon"})))


def test_a_report_hides_the_sources_and_the_language_that_is_named_is_what_is_written_in() -> None:
    document = Document(notebook("1"))
    job = Job("nb.ipynb", parameters={"n": True}, language="R", report_mode=True)
    found = prepare(document, job, "unheard-of", "", writer_for)
    assert sources(document) == ["# Parameters\nn = TRUE", "1"]
    assert [cell["metadata"]["jupyter"] for cell in document.cells] == [{"source_hidden": True}] * 2
    assert len(found.plan.cells) == 2


def test_environment_variables_are_set_before_the_first_cell_where_the_kernel_starts_without_them() -> None:
    job = Job("nb.ipynb", env={"A": "1"}, secrets={"KEY": "5ecret5"})
    found = prepare(Document(notebook("1", "2")), job, "python3", "python", writer_for, env=job.env)
    assert before(found) == [['KEY = "5ecret5"', '__import__("os").environ["A"] = "1"'], []]
    assert before(
        prepare(Document(notebook("1")), Job("nb.ipynb", env={"A": "1"}), "python3", "python", writer_for)
    ) == [[]]
    with pytest.raises(UsageError, match="nbrun does not know how Scala sets environment variables"):
        prepare(Document(notebook("1")), job, "", "scala", writer_for, env=job.env)
