"""One run of the harness: the contenders take turns, round after round, and what each took is written down at once.

Turns, because a machine is not equally fast all day: what disturbs a minute disturbs all of them. The first round of a
workload begins with another contender than the second, so that none always follows the same one.
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.clients.kernel_client import address
from benchmarks.contenders import CLIENTS, CONTENDERS, Contender, FarServer, needs_server
from benchmarks.environment import OWN, variables
from benchmarks.measuring import LIMIT, Taken, adopt_orphans, measure
from benchmarks.results import Measurement, Results, describe_machine
from benchmarks.workloads import WORKLOADS, Workload

HALF_TRIP = 0.05
"""Seconds that W7's link holds everything, each way."""

FAR_ROOM = "far"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    workloads: Sequence[str]
    contenders: Sequence[str]
    interpreters: Mapping[str, Path]
    """The interpreter of each contender's environment."""
    rounds: int | None = None
    """Rounds of every contender, instead of each workload's own number."""
    environment: str = OWN

    def turns(self) -> Iterator[tuple[Workload, Contender, int]]:
        """Return who runs what when."""
        for name in self.workloads:
            workload = WORKLOADS[name]
            most = self.rounds or workload.rounds
            for number in range(most):
                shift = number % len(self.contenders)
                for who in (*self.contenders[shift:], *self.contenders[:shift]):
                    contender = CONTENDERS[who]
                    if number < contender.rounds(workload, self.rounds):
                        yield workload, contender, number


def run(plan: Plan, folder: Path) -> Results:
    """Measure what is not measured yet, and keep it in ``folder/run.json``."""
    record = folder / "run.json"
    if record.exists():
        results = Results.load(record)
    else:
        machine = describe_machine(dict.fromkeys(plan.interpreters[who] for who in plan.contenders))
        results = Results(machine, environment=plan.environment)
    adopt_orphans()
    room = folder / "room"
    try:
        _warm_up(plan, room)
        for workload, contender, number in plan.turns():
            if results.has(workload.name, contender.name, number):
                continue
            measured = turn(workload, contender, number, room, plan.interpreters[contender.name])
            if measured is not None:
                results.measurements.append(measured)
                results.save(record)
                say(measured)
    finally:
        shutil.rmtree(room, ignore_errors=True)
    results.save(record)
    return results


def turn(
    workload: Workload, contender: Contender, number: int, room: Path, interpreter: Path, *, limit: float = LIMIT
) -> Measurement | None:
    """Run one workload once with one contender, in the environment of `interpreter`, for `limit` seconds at most.

    Return None where the workload is not for the contender.
    """
    place = FarServer("", "") if needs_server(contender.name, workload.name) else None
    if contender.command(workload, place) is None:
        return None
    folder = _prepare(workload, room)
    environment = variables(room / "home", interpreter)
    with contextlib.ExitStack() as stack:
        server, beside = None, list[psutil.Process]()
        if place is not None:
            delay = HALF_TRIP if workload.name == "W7" else None
            server, beside = stack.enter_context(running_server(folder, interpreter, environment, delay))
            environment["JUPYTER_TOKEN"] = server.token
            if delay is None:
                _use(server, folder, interpreter, environment)
        command = contender.command(workload, server)
        assert command is not None
        program = shutil.which(command[0], path=environment["PATH"]) or command[0]
        environment["STARTED"] = str(time.time())
        taken = measure([program, *command[1:]], folder=folder, variables=environment, beside=beside, limit=limit)
    results = folder / ("in" if contender.in_place else "out")
    return Measurement(
        workload.name,
        contender.name,
        number,
        round(taken.wall, 4),
        round(taken.cpu, 4),
        taken.peak,
        taken.runner_peak,
        _failure(workload, taken, results),
        {role: round(seconds, 2) for role, seconds in taken.parts.items()},
        taken.peaks,
        taken.files,
    )


def _use(server: FarServer, folder: Path, interpreter: Path, environment: Mapping[str, str]) -> None:
    """Run one cell on a server, because a new one imports much for its first notebook."""
    notebook = folder / "first.ipynb"
    notebook.write_text(json.dumps(WORKLOADS["W1"].notebook()), encoding="utf-8")
    command = [str(interpreter.parent / "nbrun"), "run", "-q", notebook.name, "--server", server.url]
    subprocess.run(command, cwd=folder, env=dict(environment), check=True, timeout=LIMIT)


def _failure(workload: Workload, taken: Taken, results: Path) -> str:
    missing = [workload.missing(results / f"{number}.ipynb") for number in range(workload.copies)]
    told = next((one for one in missing if one), "")
    if taken.exit_code != 0:
        last = taken.said.strip().splitlines()[-1:] or ["nothing said"]
        return f"exit code {taken.exit_code}: {told or last[0][:160]}"
    return told or ("processes left behind" if "left behind:" in taken.said else "")


def _prepare(workload: Workload, room: Path) -> Path:
    folder = room / "work"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # nbmake's; else it finds this repository's own
    for number in range(workload.copies):
        (folder / "in" / f"{number}.ipynb").write_text(json.dumps(workload.notebook()), encoding="utf-8")
    return folder


def _warm_up(plan: Plan, room: Path) -> None:
    """Let everybody run once unmeasured, so that nobody is the one who compiles modules and reads them from disk."""
    for who in plan.contenders:
        for name in ("W1", "W6", "help"):
            if name == "W6" and who not in ("nbmake -n2", "nbrun on a server"):
                continue
            warm = WORKLOADS[name]
            small = Workload(name, "", warm.sources, warm.check, min(warm.copies, 2))
            turn(small, CONTENDERS[who], 0, room, plan.interpreters[who])


@contextlib.contextmanager
def running_server(
    root: Path, interpreter: Path, environment: Mapping[str, str], delay: float | None
) -> Iterator[tuple[FarServer, list[psutil.Process]]]:
    """Start a stock server whose root is `root`, behind a link of `delay` seconds each way if wanted."""
    token = secrets.token_hex(16)
    runtime = root.parent / "server"
    shutil.rmtree(runtime, ignore_errors=True)
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", f"--ServerApp.root_dir={root}"]
    own = {**environment, "JUPYTER_TOKEN": token, "JUPYTER_RUNTIME_DIR": str(runtime)}
    with contextlib.ExitStack() as stack:
        server = subprocess.Popen(
            [str(interpreter), "-m", "jupyter_server", *options],
            env=own,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(_end, server)
        url = address(runtime / f"jpserver-{server.pid}.json")
        if delay is not None:
            port = url.rstrip("/").rpartition(":")[2]
            script = str(CLIENTS.parent / "link.py")
            link = subprocess.Popen(
                [sys.executable, "-P", script, port, str(delay)], stdout=subprocess.PIPE, env=environment
            )
            stack.callback(_end, link)
            assert link.stdout is not None
            url = f"http://127.0.0.1:{int(link.stdout.readline())}/"
            yield FarServer(url, token), [psutil.Process(server.pid), psutil.Process(link.pid)]
        else:
            yield FarServer(url, token), [psutil.Process(server.pid)]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server and whatever kernels it still has."""
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        for one in family:
            with contextlib.suppress(psutil.Error, ChildProcessError):
                one.kill()
                os.waitpid(one.pid, 0)


def say(measured: Measurement) -> None:
    """Write one line about a measurement to standard error."""
    print(
        f"{measured.workload:5} {measured.contender:26} {measured.wall:8.3f} s {measured.cpu:8.2f} CPU s "
        f"({' '.join(f'{seconds:.2f}' for seconds in measured.parts.values())}) "
        f"{measured.peak / 1e6:7.0f} MB ({measured.runner_peak / 1e6:.0f}) {measured.failure}",
        file=sys.stderr,
        flush=True,
    )
