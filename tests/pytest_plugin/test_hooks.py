"""``pytest --nbrun``: notebooks as tests."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.ci_runners import commands_in, other_commands_in
from tests.support.notebooks import code, notebook, write_notebook


def run_pytest(folder: Path, *args: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(folder), *args],
        cwd=folder, capture_output=True, text=True, timeout=200, env={**inherited, **(environ or {})},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tests")
    write_notebook(folder / "fine.ipynb", notebook("print(1)"))
    write_notebook(folder / "sub" / "raises.ipynb", notebook("a = 1", "b = 2\nraise ValueError('no data')"))
    write_notebook(folder / "slow.ipynb", notebook("import time; time.sleep(60)", nbrun={"cell_timeout": "1s"}))
    (folder / "broken.ipynb").write_text("{")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "fine-checkpoint.ipynb").write_text("{")
    (folder / "test_other.py").write_text("def test_that_passes() -> None: ...\n")
    return folder


def test_each_notebook_is_a_test_that_shows_the_cell_that_failed(folder: Path) -> None:
    before = (folder / "fine.ipynb").read_bytes()
    found = run_pytest(folder, "--nbrun", "--nbrun-timeout", "5m", "-n", "2")
    assert "3 failed, 2 passed" in found.stdout, found.stdout + found.stderr
    for said in (
        "ValueError: no data in cell 2 of 2",
        ">    2 | raise ValueError('no data')",
        "exceeded the cell's limit of 1.0 s in cell 1 of 1",
        "sub/raises.ipynb::notebook",
    ):
        assert said in found.stdout
    assert "pytest_items.py" not in found.stdout
    assert (folder / "fine.ipynb").read_bytes() == before


def test_executed_notebooks_are_written_back_only_if_asked_for(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "fine.ipynb", notebook("print(1)"))
    assert "1 passed" in run_pytest(tmp_path, "--nbrun", "--nbrun-save").stdout
    assert '"1\\n"' in path.read_text()


def test_what_child_processes_write_is_collected_under_pytest_too(tmp_path: Path) -> None:
    tells = "import os\nassert 'PYTEST_CURRENT_TEST' in os.environ\nos.system('echo from a child')"
    path = write_notebook(tmp_path / "fine.ipynb", notebook(tells))
    assert "1 passed" in run_pytest(tmp_path, "--nbrun", "--nbrun-save").stdout
    assert '"from a child\\n"' in path.read_text()


def test_the_settings_of_the_project_hold_and_what_is_typed_counts_before_them(tmp_path: Path) -> None:
    shows = notebook(
        code("region, year = 'none', 0", tags=["parameters"]), "print(TOKEN, region, year)\nopen('made', 'x')"
    )
    for name in ("a", "sub/b", "drafts/c", "old/d"):
        write_notebook(tmp_path / f"{name}.ipynb", shows)
    write_notebook(tmp_path / "slow.ipynb", notebook("import time; time.sleep(60)"))
    write_notebook(tmp_path / "quick.ipynb", notebook("import time; time.sleep(60)"))
    (tmp_path / "work").mkdir()
    (tmp_path / "nbrun.toml").write_text(
        """
        cell-timeout = "50s"
        checkpoint = true
        output = "out"
        secret = ["TOKEN"]
        exclude = ["drafts/"]
        parameters = { region = "EU", year = 1 }
        allow-new = true
        inject-paths = true
        overrides = [
          { match = "sub/", parameters = { year = 2 } }, { match = "old/", skip = true },
          { match = "slow.ipynb", cell-timeout = "1s" },
          { match = "quick.ipynb", idle-timeout = "9s", kernel = "none" },
        ]
        """
    )
    environ = {"TOKEN": "hunter2222"}
    found = run_pytest(tmp_path, "--nbrun", "--nbrun-idle-timeout", "2s", "--nbrun-save", "-rs", environ=environ)
    assert "2 failed, 2 passed, 2 skipped" in found.stdout, found.stdout + found.stderr
    assert "left out by the project's settings" in found.stdout
    assert "exceeded the cell's limit of 1.0 s" in found.stdout
    assert "no kernel 'none'" in found.stdout
    assert '"*** EU 1\\n"' in (tmp_path / "a.ipynb").read_text()
    assert '"*** EU 2\\n"' in (tmp_path / "sub" / "b.ipynb").read_text()
    assert not (tmp_path / "out").exists()


def test_a_setting_that_is_wrong_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "nbrun.toml").write_text("jobs = 2\ncell-timout = 3\n")
    found = run_pytest(tmp_path, "--nbrun")
    assert found.returncode == pytest.ExitCode.USAGE_ERROR
    assert "nbrun.toml, line 2: cell-timout: is no setting" in found.stderr


def test_a_limit_that_is_none_is_a_wrong_call(tmp_path: Path) -> None:
    found = run_pytest(tmp_path, "--nbrun", "--nbrun-timeout", "soon")
    assert found.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--nbrun-timeout: 'soon' is no duration" in found.stderr


def test_without_the_option_nothing_is_collected_and_nothing_of_a_run_imported(folder: Path) -> None:
    (folder / "conftest.py").write_text(
        "import sys\ndef pytest_unconfigure():\n"
        "    print('imported', sorted(n for n in sys.modules if n.startswith('nbrun')))\n"
    )
    found = run_pytest(folder)
    (folder / "conftest.py").unlink()
    assert "1 passed" in found.stdout
    assert "imported ['nbrun', 'nbrun.pytest_plugin', 'nbrun.pytest_plugin.hooks']" in found.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_neither_names_nor_what_cells_say_command_a_ci_runner_or_a_terminal(tmp_path: Path) -> None:
    hostile = (Path(__file__).parents[2] / "fixtures" / "hostile" / "github_commands.ipynb").read_bytes()
    names = ["plain é.ipynb", "::error::x.ipynb", "x\n::error title=y::a \r::error::b##[error]\x1b]0;t\x07\u2028.ipynb"]
    for name in names:
        (tmp_path / name).write_bytes(hostile)
    (tmp_path / "bad\n::error::z.ipynb").write_text("{")
    found = run_pytest(tmp_path, "--nbrun", "-v", environ={"GITHUB_ACTIONS": "true"})
    assert "4 failed" in found.stdout, found.stdout + found.stderr
    assert commands_in(found.stdout) == []
    assert list(other_commands_in(found.stdout)) == []
    assert not set(found.stdout) & set("\x1b\x07\r\u2028")
    assert "plain é.ipynb::notebook FAILED" in found.stdout
    assert "FAILED \\x3a:error\\x3a:x.ipynb::notebook - ValueError" in found.stdout
