"""What several of the tests against real processes share: one stock server, and a place for notebooks on it or not."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_runs import Place, place_on
from tests.support.servers import RunningServer, jupyter_server

PROGRAMS = {
    "dies": "import sys; print('no such library: libfoo.so', file=sys.stderr); sys.exit(1)",
    "hangs": "import os, pathlib, threading; os.environ.get('HANGS') and pathlib.Path(os.environ['HANGS']).touch(); "
    "threading.Event().wait()",
}
"""Kernels that never come up, and the Python that they are."""


@pytest.fixture(scope="session")
def jupyter_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder for JUPYTER_PATH, with kernels in it that do not come up."""
    folder = tmp_path_factory.mktemp("jupyter-path")
    for name, program in PROGRAMS.items():
        write_spec(folder, name, [sys.executable, "-c", program, "{connection_file}"])
    write_spec(folder, "missing-program", ["/no/such/program", "{connection_file}"])
    (folder / "broken").mkdir()
    (folder / "broken" / "ipykernel.py").write_text("raise ImportError('no such library: libbar.so')")
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    write_spec(folder, "broken-ipykernel", argv, env={"PYTHONPATH": str(folder / "broken")})
    return str(folder)


def write_spec(folder: Path, name: str, argv: list[str], **more: Any) -> None:
    """Write a kernelspec."""
    spec = folder / "kernels" / name
    spec.mkdir(parents=True)
    model = {"argv": argv, "display_name": name, "language": "python", **more}
    (spec / "kernel.json").write_text(json.dumps(model))


@pytest.fixture(scope="session")
def stock_server(tmp_path_factory: pytest.TempPathFactory, jupyter_path: str) -> Iterator[RunningServer]:
    """A stock server that restarts kernels that die, as usual, and that looks for dead ones more often."""
    quick = ["--KernelRestarter.time_to_dead=0.5"]
    with jupyter_server(tmp_path_factory.mktemp("stock"), args=quick, env={"JUPYTER_PATH": jupyter_path}) as server:
        yield server


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where a rescue file is to be found."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def on_stock(stock_server: RunningServer, tmp_path: Path, here: Path) -> Place:
    """A folder on the stock server."""
    return place_on(stock_server, tmp_path)


@pytest.fixture(params=["private", "stock"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, here: Path, jupyter_path: str, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """A folder whose notebooks run on private servers, and then one on the stock server."""
    if request.param == "stock":
        return place_on(request.getfixturevalue("stock_server"), tmp_path)
    monkeypatch.setenv("JUPYTER_PATH", jupyter_path)
    return place_on(None, tmp_path)
