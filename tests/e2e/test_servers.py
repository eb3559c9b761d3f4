"""Servers of other ages and kinds: a notebook is loaded from, run on and saved to each of them by the command."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbrun.errors import ExitCode
from tests.support.notebooks import assert_exit, notebook, outputs_of, read_notebook, run_nbrun, write_notebook
from tests.support.other_servers import OTHER_SERVERS, other_server
from tests.support.servers import RunningServer

pytestmark = pytest.mark.timeout(600)

PASSING = notebook(
    "print('one')\nprint('two')",
    "21 * 2",
    "from IPython.display import HTML, display\nshown = display(HTML('<b>before</b>'), display_id=True)",
    "shown.update(HTML('<b>after</b>'))",
)
FAILING = notebook("print('so far')", "1 / 0", "print('never')")


@pytest.fixture(scope="module", params=OTHER_SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server of each kind, with a passing and a failing notebook in a folder of it."""
    root = tmp_path_factory.mktemp(request.param) / "root"
    write_notebook(root / "reports" / "passing.ipynb", PASSING)
    write_notebook(root / "reports" / "failing.ipynb", FAILING)
    with other_server(request.param, root) as running:
        yield running


def run_on(server: RunningServer, name: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a notebook that only the server has, from a folder where there is none."""
    output = f"reports/executed-{name}"
    return run_nbrun(
        "run", f"reports/{name}", "-o", output, "--server", server.url, "--json", "-", *options,
        cwd=folder, env={"NBRUN_TOKEN": server.token},
    )  # fmt: skip


def outcomes(run: subprocess.CompletedProcess[str]) -> list[str]:
    report: dict[str, Any] = json.loads(run.stdout)
    return [cell["outcome"] for cell in report["cells"]]


def test_the_executed_notebook_is_saved_on_the_server(server: RunningServer, tmp_path: Path) -> None:
    run = run_on(server, "passing.ipynb", tmp_path)

    assert_exit(run, ExitCode.OK)
    assert outcomes(run) == ["passed"] * 4
    saved = read_notebook(server.root / "reports" / "executed-passing.ipynb")
    printed, result, shown, updating = outputs_of(saved)
    assert printed == [{"output_type": "stream", "name": "stdout", "text": "one\ntwo\n"}]
    assert [output["data"]["text/plain"] for output in result] == ["42"]
    assert [output["data"]["text/html"] for output in shown] == ["<b>after</b>"]
    assert updating == []
    assert [cell["execution_count"] for cell in saved["cells"]] == [1, 2, 3, 4]
    assert list(tmp_path.iterdir()) == []


def test_a_cell_that_raises_ends_the_notebook_and_what_ran_is_saved(server: RunningServer, tmp_path: Path) -> None:
    run = run_on(server, "failing.ipynb", tmp_path)

    assert_exit(run, ExitCode.NOTEBOOK_FAILED)
    assert outcomes(run) == ["passed", "failed", "not-run"]
    assert json.loads(run.stdout)["cells"][1]["error"]["ename"] == "ZeroDivisionError"
    printed, raised, never = outputs_of(read_notebook(server.root / "reports" / "executed-failing.ipynb"))
    assert printed == [{"output_type": "stream", "name": "stdout", "text": "so far\n"}]
    assert [(output["output_type"], output["ename"]) for output in raised] == [("error", "ZeroDivisionError")]
    assert never == []


@pytest.mark.parametrize("name", ["passing.ipynb", "failing.ipynb"])
def test_no_session_and_no_kernel_is_left_behind(name: str, server: RunningServer, tmp_path: Path) -> None:
    run = run_on(server, name, tmp_path)

    assert run.returncode in (ExitCode.OK, ExitCode.NOTEBOOK_FAILED), run.stderr
    assert server.sessions() == []
    assert server.get("api/kernels") == []


def test_the_notebook_that_was_run_stays_as_it_was(server: RunningServer, tmp_path: Path) -> None:
    source = server.root / "reports" / "passing.ipynb"
    before = source.read_bytes()

    assert_exit(run_on(server, "passing.ipynb", tmp_path), ExitCode.OK)

    assert source.read_bytes() == before


def test_the_token_is_neither_told_nor_logged(server: RunningServer, tmp_path: Path) -> None:
    run = run_on(server, "passing.ipynb", tmp_path)

    assert_exit(run, ExitCode.OK)
    assert server.token not in run.stdout + run.stderr
    assert server.token not in server.log.read_text(errors="replace")


def test_a_wrong_token_is_told_as_such(server: RunningServer, tmp_path: Path) -> None:
    run = run_nbrun("run", "reports/passing.ipynb", "--server", server.url, cwd=tmp_path, env={"NBRUN_TOKEN": "wrong"})

    assert_exit(run, ExitCode.SERVER)
    assert "token" in run.stderr
    assert server.sessions() == []
