"""Markers by what a test needs, the option ``--nbrun-pipeline``, and fixtures for a server behind a proxy.

A test gets the markers ``server``, ``kernel`` and ``browser`` from its fixtures and its path. A test without one of
these and without ``slow``, ``large`` and ``soak`` gets the marker ``unit``. A unit test fails if it runs nbrun, a
Jupyter server or a kernel in another process.
"""

import functools
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import nbrun.runner.run
from nbrun._lazy_imports import grammars_put_off
from nbrun.core.execution.pipelining import Pipelining
from nbrun.core.planning.plan import Plan
from nbrun.core.protocol.agent import Agent
from nbrun.jupyter.kernel_session import RunningKernel
from nbrun.runner.pipelining import choose_pipelining
from tests.support.processes import FORCED_DEPTH
from tests.support.proxy import Proxy, proxy
from tests.support.servers import RunningServer, jupyter_server
from tests.support.shares import in_shares

with grammars_put_off():
    import nbformat  # noqa: F401  (otherwise the first test module to import it builds them, for 1.5 s)

# A background job of a script ignores SIGINT, and nohup SIGHUP. Programs that the tests start would inherit that.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (getattr(signal, "SIGHUP", None), signal.SIG_DFL),
):
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# On a busy machine any example may take long.
settings.register_profile("nbrun", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nbrun")

TESTS = Path(__file__).parent
KERNEL_MODULES = (
    "benchmarks/",
    "cli/options/test_batch.py",
    "cli/options/test_log.py",
    "api/test_functions.py",
    "api/test_functions_mypy.py",
    "api/test_servers.py",
    "cli/options/test_performance.py",
    "cli/options/test_preparation.py",
    "cli/options/test_reports.py",
    "cli/options/test_saving.py",
    "cli/test_",
    "e2e/",
    "house/test_docs_examples.py",
    "jupyter/http/test_auth.py",
    "jupyter/kernel/test_websocket.py",
    "jupyter/test_client.py",
    "jupyter/test_owner_mark.py",
    "kernel_side/test_launch",
    "local_server/",
    "pytest_plugin/",
    "publishing/test_around_run.py",
    "runner/batch/test_discovery.py",
    "runner/batch/test_plan.py",
    "engines/test_",
    "runner/test_attempts.py",
    "runner/test_engine.py",
    "runner/test_doctor.py",
    "runner/test_left_sessions.py",
    "runner/test_pipelining.py",
    "runner/test_prepare_only.py",
    "runner/test_run.py",
    "runner/test_saving.py",
    "runner/test_sending.py",
    "storage/test_in_memory.py",
    "storage/test_on_server",
    "storage/test_uploaded.py",
    "support/test_proxy.py",
    "test__import_path.py",
    "test__lazy_imports.py",
    "test_action",
)
"""Beginnings of the paths of tests that start servers and kernels without a fixture, most by running notebooks."""
SERVER_MODULES = (
    "house/test_clusters.py",
    "house/test_docs_nightly.py",
    "jupyter/test_hub.py",
    "publishing/notifications/test_senders.py",
    "publishing/test_publish",
    "publishing/test_reporter.py",
    "publishing/test_store_lock.py",
    "storage/object_stores/",
    "storage/test_in_object_store.py",
)
"""Modules that start other servers (stores, mail, hubs) or processes that publish."""
BROWSER_MODULES = ("reporters/html/test_reporter",)
"""Beginnings of the paths of tests that write web pages in another process and look at them in a browser."""
BROWSER_FIXTURES = {"page", "browser"}
NOT_UNIT = {"server", "kernel", "browser", "slow", "large", "soak"}
PROGRAMS = ("nbrun", "jupyter_server", "nbrun.local_server.process.boot", "ipykernel_launcher")
_started: list[str] = []


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect the tests without the garbage collector, and exempt from it what is loaded then."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)  # markers come before pytest deselects by them, and the order afterwards
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    mark_by_needs(items)
    yield
    if (processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
        short: list[pytest.Item] = []
        modules: dict[Path, list[pytest.Item]] = {}
        for item in items:
            (short if item.get_closest_marker("unit") else modules.setdefault(item.path, [])).append(item)
        items[:] = in_shares([*modules.values()], short, assumed_cost, processes)


def assumed_cost(item: pytest.Item) -> float:
    """Return about how many seconds a test takes that is no unit test."""
    return 20.0 if item.get_closest_marker("slow") else 0.7


def mark_by_needs(items: list[pytest.Item]) -> None:
    """Mark each test with what it needs."""
    for item in items:
        path = path_in_tests(item.path)
        fixtures = getattr(item, "fixturenames", ())
        if path.startswith(KERNEL_MODULES):
            item.add_marker("server")
            item.add_marker("kernel")
        if path.startswith(SERVER_MODULES) or any(name.endswith("server") for name in fixtures):
            item.add_marker("server")
        if path.startswith(BROWSER_MODULES) or BROWSER_FIXTURES.intersection(fixtures):
            item.add_marker("browser")
        if not NOT_UNIT.intersection(mark.name for mark in item.iter_markers()):
            item.add_marker("unit")


@functools.cache
def path_in_tests(path: Path) -> str:
    """Return the path of a module relative to the folder of the tests, or "" if it is elsewhere."""
    return path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""


def _watch_processes(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        command = [os.fsdecode(part) for part in arguments[1] if isinstance(part, (str, bytes, os.PathLike))]
        if any(Path(part).name in PROGRAMS for part in command):
            _started.append(" ".join(command)[:200])


sys.addaudithook(_watch_processes)


@pytest.fixture(autouse=True)
def _no_server_in_unit_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a unit test that starts a server or a kernel."""
    _started.clear()
    yield
    if request.node.get_closest_marker("unit") is not None:
        assert not _started, f"not a unit test: add its module to tests/conftest.py ({_started[0]})"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nbrun-pipeline", type=int, metavar="N", help="run every notebook with --pipeline N")


def pytest_configure(config: pytest.Config) -> None:
    depth = config.getoption("--nbrun-pipeline")
    if depth is None:
        return
    os.environ[FORCED_DEPTH] = str(depth)

    def forced(
        running: RunningKernel,
        agent: Agent,
        plan: Plan,
        wanted: int | None,
        warn: Callable[[str], None],
        *,
        near: bool,
        shares_progress: bool = False,
    ) -> Pipelining:
        quiet = (lambda _: None) if wanted is None else warn
        return choose_pipelining(
            running, agent, plan, wanted or depth, quiet, near=near, shares_progress=shares_progress
        )

    setattr(nbrun.runner.run, "choose_pipelining", forced)  # noqa: B010  (it is no name that the module gives away)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of this module alone, so that its sessions can be counted."""
    with jupyter_server(tmp_path_factory.mktemp("files")) as server:
        yield server


@pytest.fixture
async def wire(server: RunningServer) -> AsyncIterator[Proxy]:
    """A proxy before the server."""
    async with proxy(server) as wire:
        yield wire


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of the test's own, for rescue files."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def file(server: RunningServer) -> Path:
    """Where the notebook of a test is."""
    return server.root / "nb.ipynb"


@pytest.fixture
def options(wire: Proxy, server: RunningServer) -> dict[str, Any]:
    """How to run on the server, through the proxy."""
    return {"server": wire.url, "token": server.token}
