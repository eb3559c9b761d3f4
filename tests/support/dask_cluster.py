"""Real Dask clusters: a scheduler and workers with their nannies, each a process of its own, ended by their pids."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.support.processes import MARK, default_signals, new_mark, processes_of
from tests.support.servers import LOG_QUOTED, START_LIMIT, pause

QUIET = ("--no-dashboard",)


@dataclass
class DaskCluster:
    """A running scheduler and its workers. ``mark`` is in the environment of all processes that they started."""

    folder: Path
    security: Sequence[str] = ()
    mark: str = field(default_factory=new_mark)
    address: str = ""
    nannies: list[subprocess.Popen[bytes]] = field(default_factory=list)
    scheduler: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the URL of the engine."""
        return self.address.replace("tcp://", "dask://").replace("tls://", "dask+tls://")

    def start(self, environment: Mapping[str, str] | None = None, dashboard: Sequence[str] = QUIET) -> None:
        """Start the scheduler on a free port."""
        file = self.folder / "scheduler.json"
        file.unlink(missing_ok=True)
        protocol = ("--protocol", "tls") if self.security else ()
        place = ("--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        self.scheduler = self._process("scheduler", *place, *protocol, *dashboard, env=environment)
        deadline = time.monotonic() + START_LIMIT
        while not self.address:
            assert time.monotonic() < deadline, self.log("scheduler")
            assert self.scheduler.poll() is None, self.log("scheduler")
            with contextlib.suppress(OSError, json.JSONDecodeError):
                self.address = json.loads(file.read_text())["address"]
            pause(0.05)

    def add_worker(
        self,
        name: str,
        *options: str,
        environment: Mapping[str, str] | None = None,
        dashboard: Sequence[str] = QUIET,
        python: Path | None = None,
    ) -> None:
        """Start a worker with its nanny, which joins by itself; `python` is another interpreter than the tests use."""
        place = ("--name", name, "--nthreads", "1", "--local-directory", str(self.folder / name), *dashboard, *options)
        self.nannies.append(self._process("worker", self.address, *place, env=environment, log=name, python=python))

    def _process(
        self, *command: str, env: Mapping[str, str] | None, log: str = "", python: Path | None = None
    ) -> subprocess.Popen[bytes]:
        inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        program = (python or Path(sys.executable)).with_name("dask")
        with (self.folder / f"{log or command[0]}.log").open("wb") as sink:
            return subprocess.Popen(
                [str(program), *command, *self.security],
                cwd=self.folder,
                env={**inherited, MARK: self.mark, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                preexec_fn=default_signals,  # noqa: PLW1509
            )

    def log(self, name: str) -> str:
        """Return the end of a log."""
        return (self.folder / f"{name}.log").read_text()[-LOG_QUOTED:]

    def await_log(self, name: str, words: str) -> None:
        """Wait until a log contains `words`."""
        deadline = time.monotonic() + START_LIMIT
        while words not in (self.folder / f"{name}.log").read_text():
            assert time.monotonic() < deadline, self.log(name)
            pause(0.05)

    def processes(self, *words: str) -> list[psutil.Process]:
        """Return the processes of the cluster whose command lines contain one of these words."""
        found = []
        for process in processes_of(self.mark):
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(word in " ".join(process.cmdline()) for word in words):
                    found.append(process)
        return found

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes that the nannies have started."""
        return [child for nanny in self.nannies for child in _children(nanny.pid) if "spawn_main" in _line(child)]

    def left(self) -> list[str]:
        """Return the command lines of the servers and kernels of seats."""
        return [_line(one) for one in self.processes("local_server", "ipykernel")]

    def await_nothing_left(self, within: float = 5.0) -> None:
        """Check that no server and no kernel of a seat is left after this many seconds."""
        deadline = time.monotonic() + within
        while left := self.left():
            assert time.monotonic() < deadline, f"{within:g} s later there still are {left}"
            pause(0.05)

    def ask(self, source: str) -> Any:
        """Return the value of an expression of ``scheduler``, which may await, from a function that runs there."""
        import distributed  # takes long, and every process of the tests imports this module

        names: dict[str, Any] = {"__name__": "__main__"}  # so the function travels as code
        exec(f"async def ask(dask_scheduler=None):\n    scheduler = dask_scheduler\n    return {source}\n", names)

        async def answer() -> Any:
            async with distributed.Client(self.address, asynchronous=True, timeout=20) as client:
                return await client.run_on_scheduler(names["ask"])

        return asyncio.run(answer())

    def close(self) -> None:
        """Kill everything."""
        started = [each for each in (*self.nannies, self.scheduler) if each is not None]
        for process in started:
            process.send_signal(signal.SIGKILL)
        for process in started:
            process.wait(10)
        for left in processes_of(self.mark):
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children()
    return []


def _line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


@contextlib.contextmanager
def dask_cluster(
    folder: Path, workers: int = 2, security: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[DaskCluster]:
    """Run a scheduler and workers with one thread each for the length of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = DaskCluster(folder, security)
    try:
        cluster.start()
        for number in range(workers):
            cluster.add_worker(f"worker-{number}", environment=environment)
        yield cluster
    finally:
        cluster.close()
