"""Runs on the kernels of a real Kernel Gateway and a real Enterprise Gateway."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.core.events import Event, OutputArrived
from nbrun.errors import AccessDenied, ExitCode, UsageError
from tests.support.live_runs import text_of
from tests.support.notebooks import code, notebook, read_notebook, run_nbrun, write_notebook
from tests.support.other_servers import enterprise_gateway, kernel_gateway
from tests.support.servers import RunningServer, pause

GATEWAYS: Mapping[str, Callable[[Path], AbstractContextManager[RunningServer]]] = {
    "kernel gateway": kernel_gateway,
    "enterprise gateway": enterprise_gateway,
}


@pytest.fixture(scope="module", params=list(GATEWAYS))
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("gateway")
    with GATEWAYS[request.param](root) as running:
        yield running


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A Kernel Gateway, for what does not depend on the kind."""
    with kernel_gateway(tmp_path_factory.mktemp("plain")) as running:
        yield running


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def on(gateway: RunningServer) -> dict[str, Any]:
    return {"engine": f"gateway+{gateway.url}", "token": gateway.token}


def printed(path: Path) -> list[str]:
    return [text_of(cell["outputs"]) for cell in read_notebook(path)["cells"] if cell["cell_type"] == "code"]


def test_notebooks_are_read_and_saved_here_and_no_kernel_is_left(here: Path, gateway: RunningServer) -> None:
    write_notebook(here / "a.ipynb", notebook(code("x = 1", tags=["parameters"]), "print(x, TOKEN)"))
    write_notebook(here / "sub" / "wrong.ipynb", notebook("print('before')", "1 / 0"))
    secrets, parameters = {"TOKEN": "planted-value"}, {"x": 2}
    done = nbrun.run_many(
        ["a.ipynb", "sub/wrong.ipynb"], output="out/", jobs=2, parameters=parameters, allow_new=True, secrets=secrets,
        **on(gateway),
    )  # fmt: skip
    assert [run.outcome.value for run in done.runs] == ["passed", "failed"]
    assert printed(here / "out" / "a.ipynb")[-1].startswith("2 ***")
    assert printed(here / "out" / "sub" / "wrong.ipynb")[1] == "before\n"
    assert "planted-value" not in (here / "out" / "a.ipynb").read_text() + gateway.log.read_text(errors="replace")
    assert gateway.get("api/kernels") == []
    assert not [*gateway.root.rglob("*.ipynb")]


def test_a_killed_kernel_is_reported_and_retried(here: Path, gateway: RunningServer) -> None:
    source = """import os, signal, pathlib
mark = pathlib.Path({!r})
if not mark.exists():
    mark.touch()
    os.kill(os.getpid(), signal.SIGKILL)"""
    kill = source.format(str(here / "mark"))
    write_notebook(here / "a.ipynb", notebook("print('before')", kill))
    (result,) = nbrun.run_many(["a.ipynb"], in_place=True, retries=1, **on(gateway)).runs
    assert (result.outcome.value, [each.outcome.value for each in result.tries]) == (
        "passed", ["kernel-died", "passed"],
    )  # fmt: skip
    assert gateway.get("api/kernels") == []


def test_after_ctrl_c_the_notebook_is_saved_and_no_kernel_is_left(here: Path, gateway: RunningServer) -> None:
    mark = here / "mark"
    write_notebook(
        here / "a.ipynb", notebook(f"print('before')\nopen({str(mark)!r}, 'w')\nimport time; time.sleep(600)")
    )
    command = [sys.executable, "-m", "nbrun", "run", "a.ipynb", "--engine", f"gateway+{gateway.url}"]
    environment = {**os.environ, "NBRUN_TOKEN": gateway.token}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        while not mark.exists():
            pause()
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == ExitCode.INTERRUPTED
    assert printed(here / "a.ipynb") == ["before\n"]
    assert gateway.get("api/kernels") == []


@pytest.mark.parametrize("kind", ["kernel gateway", pytest.param("enterprise gateway", marks=pytest.mark.slow)])
def test_a_gateway_that_is_killed_ends_the_batch_within_a_bound(
    here: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.jupyter.kernel_session.ENGINE_RECONNECT", 0.5)
    monkeypatch.setattr("nbrun.engines.gateway.SIGN_OF_LIFE", 0.5)
    write_notebook(here / "a.ipynb", notebook("print('a')"))
    write_notebook(here / "b.ipynb", notebook("print('begun')\nimport time; time.sleep(600)"))
    for name in "cde":
        write_notebook(here / f"{name}.ipynb", notebook("1"))
    root = here.parent / f"{here.name}-gateway"
    root.mkdir()
    killed_at = 0.0
    with GATEWAYS[kind](root) as running:

        def observe(event: Event) -> None:
            nonlocal killed_at
            if isinstance(event, OutputArrived) and "begun" in event.output.get("text", ""):
                running.kill()
                killed_at = time.monotonic()

        done = nbrun.run_many(["."], output="out/", startup_timeout=5, observe=observe, **on(running))
    assert time.monotonic() - killed_at < 40
    assert done.exit_code is ExitCode.SERVER
    assert [run.outcome.value for run in done.runs[:2]] == ["passed", "seat-lost"]
    assert {run.outcome.value for run in done.runs[2:]} <= {"server-failed", "not-run"}
    assert printed(here / "out" / "b.ipynb") == ["begun\n"]


def test_wrong_calls_end_before_a_kernel_is_started(here: Path, plain: RunningServer) -> None:
    write_notebook(here / "a.ipynb", notebook("1"))
    with pytest.raises(AccessDenied):
        nbrun.run("a.ipynb", **{**on(plain), "token": "wrong"})
    for options, said in (
        ({"cwd": "data"}, "--cwd data: not for kernels of a gateway"),
        ({"kernel": "none"}, "no kernel 'none'"),
        ({"engine_options": {"envs": {}}}, "Did you mean env?"),
        ({"artefacts": ["*.csv"]}, "a gateway has neither artefacts"),
        ({"upload": False}, "--no-upload: a gateway has no files"),
    ):
        with pytest.raises(UsageError) as raised:
            nbrun.run("a.ipynb", **{**on(plain), **options})
        assert said in f"{raised.value} {raised.value.hint}"
    assert plain.get("api/kernels") == []


def test_variables_of_the_settings_reach_the_kernel(here: Path, gateway: RunningServer) -> None:
    write_notebook(here / "a.ipynb", notebook("import os; print(os.environ['KERNEL_TEAM'])"))
    (here / "nbrun.toml").write_text(
        f'[engine]\nurl = "gateway+{gateway.url}"\n[engine.gateway]\nenv = {{KERNEL_TEAM = "x"}}\n'
    )
    done = run_nbrun("run", "a.ipynb", cwd=here, env={"NBRUN_TOKEN": gateway.token})
    assert done.returncode == ExitCode.OK, done.stderr
    assert printed(here / "a.ipynb") == ["x\n"]


@pytest.mark.parametrize("arguments", [["run", "a.ipynb"], ["doctor"]], ids=" ".join)
def test_with_server_a_gateway_is_recognised(here: Path, plain: RunningServer, arguments: list[str]) -> None:
    write_notebook(here / "a.ipynb", notebook("1"))
    done = run_nbrun(*arguments, "--server", plain.url, cwd=here, env={"NBRUN_TOKEN": plain.token})
    assert done.returncode == (ExitCode.OK if "doctor" in arguments else ExitCode.USAGE), done.stderr + done.stdout
    assert "--engine gateway+URL" in " ".join((done.stderr + done.stdout).split())


def test_the_url_of_an_engine_is_no_address_of_a_server(here: Path) -> None:
    write_notebook(here / "a.ipynb", notebook("1"))
    done = run_nbrun("run", "a.ipynb", "--server", "gateway+http://localhost:1/", cwd=here)
    assert done.returncode == ExitCode.USAGE
    assert "write --engine" in done.stderr
