"""Prepared notebooks, working folders, reports without code, and stream files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.errors import ExitCode, UsageError
from nbrun.local_server.launcher import EmbeddedServer
from tests.support.notebooks import (
    assert_exit,
    code,
    markdown,
    notebook,
    outputs_of,
    read_notebook,
    run_nbrun,
    stdout,
    write_notebook,
)
from tests.support.servers import RunningServer, jupyter_server

DECLARING = code("a = 1", tags=["parameters"], outputs=[stdout("old")], count=3)
KEPT = code("1", tags=["skip-execution"], outputs=[stdout("kept")])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A stock server."""
    with jupyter_server(tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts a private server fails the test."""
    monkeypatch.setattr(EmbeddedServer, "start", lambda _: pytest.fail("a server was started"))


@pytest.mark.usefixtures("no_server")
def test_a_prepared_notebook_has_its_parameters_and_nothing_of_an_earlier_run(here: Path) -> None:
    write_notebook(here / "nb.ipynb", notebook(markdown("# a"), DECLARING, "print(a)", KEPT, ""))
    before = (here / "nb.ipynb").read_bytes()
    result = nbrun.run("nb.ipynb", output="out/nb.ipynb", parameters={"a": 7}, prepare_only=True, report_mode=True)

    assert (result.outcome, result.exit_code, result.output) == ("prepared", ExitCode.OK, "out/nb.ipynb")
    assert [cell.outcome for cell in result.cells] == ["not-run", "not-run", "not-run", "skipped", "skipped"]
    assert (here / "nb.ipynb").read_bytes() == before
    made = read_notebook(here / "out" / "nb.ipynb")
    assert [cell["source"] for cell in made["cells"]] == ["# a", "a = 1", "# Parameters\na = 7", "print(a)", "1", ""]
    assert outputs_of(made) == [[], [], [], KEPT["outputs"], []]
    hidden = [cell["metadata"].get("jupyter") for cell in made["cells"]]
    assert hidden == [None, *[{"source_hidden": True}] * 5]
    assert all("trusted" not in cell["metadata"] for cell in made["cells"])
    run = made["metadata"]["nbrun"]["run"]
    assert (run["outcome"], run["parameters"]) == ("prepared", {"a": 7})


@pytest.mark.usefixtures("no_server")
def test_many_are_prepared_each_with_its_own_parameters_and_what_is_wrong_with_one_is_its_own(here: Path) -> None:
    write_notebook(here / "nb" / "good.ipynb", notebook(DECLARING, "print(a)"))
    write_notebook(here / "nb" / "other.ipynb", notebook(code("b = 1", tags=["parameters"])))
    result = nbrun.run_many(["nb"], output="out/{stem}-{params.a}.ipynb", matrix={"a": [1, 2]}, prepare_only=True)
    assert [(run.path, run.outcome) for run in result.runs] == [
        ("nb/good.ipynb", "prepared"), ("nb/good.ipynb", "prepared"),
        ("nb/other.ipynb", "not-run"), ("nb/other.ipynb", "not-run"),
    ]  # fmt: skip
    assert result.exit_code is ExitCode.USAGE
    assert "there is no parameter 'a'" in str(result.runs[2].problem)
    assert sorted(path.name for path in (here / "out").iterdir()) == ["good-1.ipynb", "good-2.ipynb"]
    assert read_notebook(here / "out" / "good-2.ipynb")["cells"][1]["source"] == "# Parameters\na = 2"


@pytest.mark.usefixtures("no_server")
def test_a_kernel_that_is_not_here_may_be_where_the_notebook_will_run(here: Path) -> None:
    document = notebook(code("a <- 1", tags=["parameters"]))
    document["metadata"]["kernelspec"] = {"name": "elsewhere", "display_name": "E", "language": "R"}
    write_notebook(here / "nb.ipynb", document)
    result = nbrun.run("nb.ipynb", parameters={"a": 5}, prepare_only=True)
    assert (result.outcome, result.kernel) == ("prepared", "elsewhere")
    assert "no kernel 'elsewhere'" in result.warnings[0]
    assert read_notebook(here / "nb.ipynb")["cells"][1]["source"] == "# Parameters\na = 5"


@pytest.mark.usefixtures("no_server")
def test_the_language_of_the_parameters_may_be_named(here: Path) -> None:
    write_notebook(here / "nb.ipynb", notebook("x", kernel="python3"))
    nbrun.run("nb.ipynb", output="r.ipynb", parameters={"a": None}, language="R", prepare_only=True)
    assert read_notebook(here / "r.ipynb")["cells"][0]["source"] == "# Parameters\na = NULL"
    with pytest.raises(UsageError, match="in the language 'cobol'"):
        nbrun.run("nb.ipynb", parameters={"a": 1}, language="cobol", prepare_only=True)


@pytest.mark.usefixtures("no_server")
def test_what_cannot_be_prepared_is_told(here: Path) -> None:
    write_notebook(here / "nb.ipynb", notebook("1"))
    with pytest.raises(UsageError, match="no such file"):
        nbrun.run("none.ipynb", prepare_only=True)
    with pytest.raises(UsageError, match="not saved is nothing"):
        nbrun.run("nb.ipynb", prepare_only=True, save=False)
    with pytest.raises(UsageError, match=r"gone: there is no such folder to work in"):
        nbrun.run("nb.ipynb", cwd="gone")


def test_a_notebook_on_a_server_is_prepared_there_and_works_where_it_is_told(server: RunningServer, here: Path) -> None:
    write_notebook(server.root / "team" / "nb.ipynb", notebook(DECLARING, "import os; print(os.getcwd(), a)"))
    (server.root / "data").mkdir()
    access: Any = {"server": server.url, "token": server.token}
    result = nbrun.run("team/nb.ipynb", output="p.ipynb", parameters={"a": 2}, prepare_only=True, **access)
    assert (result.outcome, result.output) == ("prepared", "p.ipynb")
    assert read_notebook(server.root / "p.ipynb")["cells"][1]["source"] == "# Parameters\na = 2"

    result = nbrun.run("team/nb.ipynb", cwd="data", **access)
    assert result.outcome == "passed", result
    assert outputs_of(read_notebook(server.root / "team" / "nb.ipynb"))[1] == [stdout(f"{server.root / 'data'} 1\n")]
    with pytest.raises(UsageError, match="no such folder on the server"):
        nbrun.run("team/nb.ipynb", cwd="nowhere", **access)
    assert server.get("api/sessions") == []
    assert list(here.iterdir()) == []


def test_streams_go_to_files_masked_and_the_kernel_works_in_another_folder(here: Path) -> None:
    tell = "import os, sys\nprint(os.getcwd())\nprint('e:', TOKEN, file=sys.stderr)\nopen('made', 'w').close()"
    write_notebook(here / "nb" / "nb.ipynb", notebook(tell))
    (here / "work").mkdir()
    found = run_nbrun(
        "run", "nb/nb.ipynb", "--cwd", "work", "--secret", "TOKEN", "--stdout-file", "-", "--stderr-file", "logs/err",
        "--report-mode", "--json", "r.json", env={"TOKEN": "hunter2222"}, cwd=here,
    )  # fmt: skip
    assert_exit(found, ExitCode.OK)
    assert found.stdout == f"{here / 'work'}\n"
    assert (here / "logs" / "err").read_text() == "e: ***\n"
    assert (here / "work" / "made").exists()
    (cell,) = read_notebook(here / "nb" / "nb.ipynb")["cells"]
    assert cell["metadata"]["jupyter"] == {"source_hidden": True}


def test_every_report_tells_that_a_notebook_was_only_prepared(here: Path) -> None:
    write_notebook(here / "nb.ipynb", notebook(DECLARING, "1"))
    found = run_nbrun(
        "run", "nb.ipynb", "--prepare-only", "-p", "a", "5", "--json", "r.json", "--junit", "r.xml", "--html", "site",
        "--github", cwd=here, env={"GITHUB_STEP_SUMMARY": str(here / "s.md"), "GITHUB_OUTPUT": str(here / "o")},
    )  # fmt: skip
    assert_exit(found, ExitCode.OK)
    assert "nb.ipynb: prepared: 3 cells to run, saved in nb.ipynb" in found.stderr
    assert (json.loads((here / "r.json").read_text())["outcome"]) == "prepared"
    assert 'skipped="3"' in (here / "r.xml").read_text()
    assert "The notebook is prepared" in (here / "site" / "index.html").read_text()
    assert "all prepared" in (here / "s.md").read_text()
    assert "failed<<" in (here / "o").read_text()
    assert "\n0\n" in (here / "o").read_text().partition("failed<<")[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--json", "-", "--stdout-file", "/dev/stdout"], "--json - and --stdout-file -: only one"),
        (["--json", "-", "--events", "/dev/fd/1"], "--json - and --events -: only one"),
        (["--stdout-file", "."], "--stdout-file .: cannot be written"),
        (["--github", "--stderr-file", "/dev/stderr"], "the CI runner would take commands"),
    ],
    ids=["twice", "twice under another name", "a folder", "on GitHub"],
)
def test_files_that_cannot_be_are_refused_before_the_run(arguments: list[str], said: str, here: Path) -> None:
    write_notebook(here / "nb.ipynb", notebook("1"))
    found = run_nbrun("run", "nb.ipynb", *arguments, cwd=here)
    assert_exit(found, ExitCode.USAGE)
    assert said in found.stderr
