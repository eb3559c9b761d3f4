"""``pytest --nbrun``: notebooks as tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.notebooks import notebook, write_notebook


def run_pytest(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(folder), *args],
        cwd=folder, capture_output=True, text=True, timeout=200, env=environ,
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
        "longer than the cell's limit of 1.0 s in cell 1 of 1",
        "sub/raises.ipynb::notebook",
    ):
        assert said in found.stdout
    assert "pytest_items.py" not in found.stdout
    assert (folder / "fine.ipynb").read_bytes() == before


def test_executed_notebooks_are_written_back_only_if_asked_for(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "fine.ipynb", notebook("print(1)"))
    assert "1 passed" in run_pytest(tmp_path, "--nbrun", "--nbrun-save").stdout
    assert '"1\\n"' in path.read_text()


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
    assert "imported ['nbrun', 'nbrun.pytest_plugin']" in found.stdout
